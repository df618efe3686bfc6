import { WithoutOrm } from '../http/orm-context.guard.js';
import { Controller, Get, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { AccountFilter, AccountList } from '../accounts/account.dto.js';
import { AccountsService } from '../accounts/accounts.service.js';
import { CurrentPrincipal, CurrentUser } from '../access/decorators.js';
import type { Principal, UserRow } from '../access/principal.js';
import { CurrentSessionRead, CurrentUserRead } from './auth.dto.js';

@Controller('auth')
@WithoutOrm()
@ApiTags('Me')
export class AuthController {
  constructor(private readonly accounts: AccountsService) {}

  @Get('session')
  @ApiOperation({
    operationId: 'getSession',
    summary: 'Get the current session, token and user',
    description:
      'Returns the session that the token names, or null if it names none. Also returns the user and the times of the token. After a refresh of the session, its `updatedAt` and `expiresAt` can be up to 30 seconds old (`CACHE_MAX_AGE_SECONDS`).',
  })
  @ApiOkResponse({ type: CurrentSessionRead })
  session(@CurrentPrincipal() me: Principal): CurrentSessionRead {
    return CurrentSessionRead.of(me, new Date());
  }

  @Get('me')
  @ApiOperation({
    operationId: 'getMe',
    summary: 'Get the authenticated user',
    description:
      'Returns the current data of the user, not the claims of the token. `permissions` lists what the user may do.',
  })
  @ApiOkResponse({ type: CurrentUserRead })
  me(@CurrentPrincipal() me: Principal): CurrentUserRead {
    return CurrentUserRead.ofPrincipal(me, new Date());
  }

  @Get('accounts')
  @ApiOperation({
    operationId: 'listMyAccounts',
    summary: 'List my linked sign-in accounts',
    description: 'Lists passwords and providers, but never their secrets.',
  })
  @ApiOkResponse({ type: AccountList })
  listAccounts(@CurrentUser() me: UserRow, @Query() filter: AccountFilter): Promise<AccountList> {
    return this.accounts.list(me.id, filter.provider);
  }
}
