import { Controller, Get, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { Roles } from '../access/decorators.js';
import { UserList, UserQuery } from './user-list.dto.js';
import { UserListService } from './user-list.service.js';

@Controller('users')
@ApiTags('Users')
export class UserListController {
  constructor(private readonly users: UserListService) {}

  @Get()
  @Roles('admin')
  @ApiOperation({ operationId: 'listUsers', summary: 'Find users' })
  @ApiOkResponse({ type: UserList })
  list(@Query() query: UserQuery): Promise<UserList> {
    return this.users.list(query);
  }
}
