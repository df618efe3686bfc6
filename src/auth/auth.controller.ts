import { Controller, Get, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { AccountFilter, AccountList } from '../accounts/account.dto.js';
import { AccountsService } from '../accounts/accounts.service.js';
import { CurrentPrincipal, CurrentUser } from '../access/decorators.js';
import type { Principal, UserRow } from '../access/principal.js';
import { UserRead } from '../users/user.dto.js';
import { CurrentSessionRead } from './auth.dto.js';

@Controller('auth')
@ApiTags('Me')
export class AuthController {
  constructor(private readonly accounts: AccountsService) {}

  @Get('session')
  @ApiOperation({ operationId: 'getSession', summary: 'My session, token and user' })
  @ApiOkResponse({ type: CurrentSessionRead })
  session(@CurrentPrincipal() me: Principal): CurrentSessionRead {
    return CurrentSessionRead.of(me, new Date());
  }

  @Get('me')
  @ApiOperation({ operationId: 'getMe', summary: 'Who I am' })
  @ApiOkResponse({ type: UserRead })
  me(@CurrentUser() me: UserRow): UserRead {
    return UserRead.of(me, new Date());
  }

  @Get('accounts')
  @ApiOperation({ operationId: 'listMyAccounts', summary: 'The ways in which I can sign in' })
  @ApiOkResponse({ type: AccountList })
  myAccounts(@CurrentUser() me: UserRow, @Query() filter: AccountFilter): Promise<AccountList> {
    return this.accounts.list(me.id, filter.provider);
  }
}
