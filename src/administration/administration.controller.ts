import { Body, Controller, Delete, HttpCode, Param, Post, Put } from '@nestjs/common';
import { ApiBody, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { type Actor, CurrentActor } from '../access/actor.js';
import { Roles } from '../access/decorators.js';
import { IfMatch } from '../http/etag.js';
import { Problems } from '../problems/problems.decorator.js';
import { UserRead } from '../users/user.dto.js';
import { AcceptsIfMatch, SendsEtag, type UserWithEtag } from '../users/user-etag.js';
import { BanRequest, RoleUpdate } from './administration.dto.js';
import { AdministrationService } from './administration.service.js';

@Controller('users/:id')
@ApiTags('Users')
@Roles('admin')
@SendsEtag()
@AcceptsIfMatch()
@Problems('NOT_FOUND')
export class AdministrationController {
  constructor(private readonly administration: AdministrationService) {}

  @Put('role')
  @Problems('SELF_DEMOTION', 'LAST_ADMIN')
  @ApiOperation({ operationId: 'changeUserRole', summary: 'Give a user other roles' })
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
  @HttpCode(200)
  @Problems('SELF_BAN', 'LAST_ADMIN')
  @ApiOperation({ operationId: 'banUser', summary: 'Ban a user and end all their sessions' })
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
  @ApiOperation({ operationId: 'unbanUser', summary: 'Lift the ban of a user' })
  @ApiOkResponse({ type: UserRead })
  unban(
    @CurrentActor() actor: Actor,
    @Param('id') id: string,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.administration.unban(actor, id, ifMatch);
  }
}
