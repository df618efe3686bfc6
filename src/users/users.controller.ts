import { Body, Controller, Delete, Get, HttpCode, Param, Patch, Post, Put } from '@nestjs/common';
import { ApiBody, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { type Actor, CurrentActor } from '../access/actor.js';
import { Roles, SelfOrAdmin } from '../access/decorators.js';
import { IfMatch } from '../http/etag.js';
import { Problems } from '../problems/problems.decorator.js';
import { BanRequest, RoleUpdate, UserUpdate } from './user-changes.dto.js';
import { UserRead } from './user.dto.js';
import { AcceptsIfMatch, SendsEtag } from './user-etag.js';
import { type UserWithEtag, UsersService } from './users.service.js';

@Controller('users/:id')
@ApiTags('Users')
@SendsEtag()
@Problems('NOT_FOUND')
export class UsersController {
  constructor(private readonly users: UsersService) {}

  @Get()
  @SelfOrAdmin()
  @ApiOperation({ operationId: 'getUser', summary: 'A user' })
  @ApiOkResponse({ type: UserRead })
  read(@Param('id') id: string): Promise<UserWithEtag> {
    return this.users.read(id);
  }

  @Patch()
  @SelfOrAdmin()
  @AcceptsIfMatch()
  @ApiOperation({ operationId: 'updateUser', summary: 'Change the name or the picture of a user' })
  @ApiOkResponse({ type: UserRead })
  update(
    @CurrentActor() by: Actor,
    @Param('id') id: string,
    @Body() update: UserUpdate,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.users.update(by, id, update, ifMatch);
  }

  @Put('role')
  @Roles('admin')
  @AcceptsIfMatch()
  @Problems('SELF_DEMOTION', 'LAST_ADMIN')
  @ApiOperation({ operationId: 'changeUserRole', summary: 'Give a user other roles' })
  @ApiOkResponse({ type: UserRead })
  changeRole(
    @CurrentActor() by: Actor,
    @Param('id') id: string,
    @Body() { role }: RoleUpdate,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.users.changeRole(by, id, role, ifMatch);
  }

  @Post('ban')
  @HttpCode(200)
  @Roles('admin')
  @AcceptsIfMatch()
  @Problems('SELF_BAN', 'LAST_ADMIN')
  @ApiOperation({ operationId: 'banUser', summary: 'Ban a user and end all their sessions' })
  @ApiBody({ type: BanRequest, required: false })
  @ApiOkResponse({ type: UserRead })
  ban(
    @CurrentActor() by: Actor,
    @Param('id') id: string,
    @Body() ban: BanRequest,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.users.ban(by, id, ban, ifMatch);
  }

  @Delete('ban')
  @Roles('admin')
  @AcceptsIfMatch()
  @ApiOperation({ operationId: 'unbanUser', summary: 'Lift the ban of a user' })
  @ApiOkResponse({ type: UserRead })
  unban(
    @CurrentActor() by: Actor,
    @Param('id') id: string,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.users.unban(by, id, ifMatch);
  }
}
