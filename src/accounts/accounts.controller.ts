import { Controller, Get, Param, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { SelfOrPermissions } from '../access/decorators.js';
import { ApiUserId } from '../openapi/parameters.js';
import { Problems } from '../problems/problems.decorator.js';
import { AccountFilter, AccountList } from './account.dto.js';
import { AccountsService } from './accounts.service.js';

@Controller('users/:id/accounts')
@ApiTags('Accounts')
export class AccountsController {
  constructor(private readonly accounts: AccountsService) {}

  @Get()
  @SelfOrPermissions({ user: ['get'] })
  @ApiUserId()
  @ApiOperation({
    operationId: 'listUserAccounts',
    summary: 'List the linked sign-in accounts of a user',
    description: 'Never returns a password or a token of a provider.',
  })
  @ApiOkResponse({ type: AccountList })
  @Problems('VALIDATION_ERROR', 'USER_NOT_FOUND')
  list(@Param('id') id: string, @Query() filter: AccountFilter): Promise<AccountList> {
    return this.accounts.list(id, filter.provider);
  }
}
