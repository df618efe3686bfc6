import { Body, Controller, Delete, HttpCode, Param, Post, Put } from '@nestjs/common';
import { ApiBody, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { type Actor, CurrentActor } from '../access/actor.js';
import { RequirePermissions } from '../access/decorators.js';
import { IfMatch } from '../http/etag.js';
import { ApiUserId } from '../openapi/parameters.js';
import { Problems } from '../problems/problems.decorator.js';
import { UserRead } from '../users/user.dto.js';
import { AcceptsIfMatch, SendsEtag, type UserWithEtag } from '../users/user-etag.js';
import { BanRequest, RoleUpdate } from './administration.dto.js';
import { AdministrationService } from './administration.service.js';

@Controller('users/:id')
@ApiTags('Users')
@ApiUserId()
@SendsEtag()
@AcceptsIfMatch()
@Problems('USER_NOT_FOUND', 'ROLE_ESCALATION')
export class AdministrationController {
  constructor(private readonly administration: AdministrationService) {}

  @Put('role')
  @RequirePermissions({ user: ['set-role'] })
  @Problems('SELF_DEMOTION')
  @ApiOperation({
    operationId: 'changeUserRole',
    summary: 'Change the roles of a user',
    description:
      "It takes effect on the user's next request. When a user loses `user:impersonate`, the sessions in which they impersonate others end. You cannot remove your own `user:set-role`, so one user who has it always remains.",
  })
  @ApiOkResponse({ type: UserRead })
  changeRole(
    @CurrentActor() actor: Actor,
    @Param('id') id: string,
    @Body() { role }: RoleUpdate,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.administration.changeRole(actor, id, role, ifMatch);
  }

  @Post('ban')
  @RequirePermissions({ user: ['ban'] })
  @HttpCode(200)
  @Problems('SELF_BAN')
  @ApiOperation({
    operationId: 'banUser',
    summary: 'Ban a user and end all their sessions',
    description:
      'It ends every session of the user at once, and every session in which the user impersonates others. Without `expiresAt`, the ban has no end. A second ban replaces the reason and the end of the first. You cannot ban yourself. Sessions that Better-Auth stores outside this database do not end, but Gatehouse still refuses the user.',
  })
  @ApiBody({ type: BanRequest, required: false })
  @ApiOkResponse({ type: UserRead })
  ban(
    @CurrentActor() actor: Actor,
    @Param('id') id: string,
    @Body() ban: BanRequest,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.administration.ban(actor, id, ban, ifMatch);
  }

  @Delete('ban')
  @RequirePermissions({ user: ['ban'] })
  @ApiOperation({
    operationId: 'unbanUser',
    summary: 'Lift the ban of a user',
    description:
      'The user can sign in again, but ended sessions stay ended. You can repeat the request safely.',
  })
  @ApiOkResponse({ type: UserRead })
  unban(
    @CurrentActor() actor: Actor,
    @Param('id') id: string,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.administration.unban(actor, id, ifMatch);
  }
}
