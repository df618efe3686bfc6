import { Body, Controller, Get, Param, Patch, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { type Actor, CurrentActor } from '../access/actor.js';
import { RequirePermissions, SelfOrPermissions } from '../access/decorators.js';
import { IfMatch } from '../http/etag.js';
import { ApiUserId } from '../openapi/parameters.js';
import { Problems } from '../problems/problems.decorator.js';
import { UserList, UserQuery } from './user-list.dto.js';
import { UserListService } from './user-list.service.js';
import { UserRead } from './user.dto.js';
import { AcceptsIfMatch, SendsEtag, type UserWithEtag } from './user-etag.js';
import { UserUpdate } from './user-update.dto.js';
import { UsersService } from './users.service.js';

@Controller('users')
@ApiTags('Users')
export class UsersController {
  constructor(
    private readonly users: UsersService,
    private readonly userList: UserListService,
  ) {}

  @Get()
  @RequirePermissions({ user: ['list'] })
  @ApiOperation({
    operationId: 'listUsers',
    summary: 'Find users',
    description:
      'All filters must match. Use `cursor` to read many pages: each page costs the same. Use `page` to jump to a page. A large total is an estimate unless you send `total=exact`: `totalIsEstimate` marks it.',
  })
  @ApiOkResponse({ type: UserList })
  list(@Query() query: UserQuery): Promise<UserList> {
    return this.userList.list(query);
  }

  @Get(':id')
  @SelfOrPermissions({ user: ['get'] })
  @ApiUserId()
  @SendsEtag()
  @Problems('USER_NOT_FOUND')
  @ApiOperation({
    operationId: 'getUser',
    summary: 'Get a user',
    description: 'Send the `ETag` as `If-Match` with a change.',
  })
  @ApiOkResponse({ type: UserRead })
  read(@Param('id') id: string): Promise<UserWithEtag> {
    return this.users.read(id);
  }

  @Patch(':id')
  @SelfOrPermissions({ user: ['update'] })
  @ApiUserId()
  @SendsEtag()
  @AcceptsIfMatch()
  @Problems('USER_NOT_FOUND', 'ROLE_ESCALATION')
  @ApiOperation({
    operationId: 'updateUser',
    summary: 'Change the name or the picture of a user',
    description: 'Omitted fields stay unchanged.',
  })
  @ApiOkResponse({ type: UserRead })
  update(
    @CurrentActor() actor: Actor,
    @Param('id') id: string,
    @Body() update: UserUpdate,
    @IfMatch() ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.users.update(actor, id, update, ifMatch);
  }
}
