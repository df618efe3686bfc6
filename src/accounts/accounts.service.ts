import { Injectable } from '@nestjs/common';
import { problem } from '../problems/problem.js';
import { UsersRepository } from '../better-auth/users.repository.js';
import { AccountList, AccountRead } from './account.dto.js';
import { AccountsRepository } from '../better-auth/accounts.repository.js';

@Injectable()
export class AccountsService {
  constructor(
    private readonly accounts: AccountsRepository,
    private readonly users: UsersRepository,
  ) {}

  /** Lists the linked sign-in accounts of a user, optionally of one provider only. */
  async list(userId: string, provider?: string): Promise<AccountList> {
    if (!(await this.users.exists(userId))) throw problem('USER_NOT_FOUND');
    const accounts = await this.accounts.findByUser(userId, provider);
    return { items: accounts.map((account) => AccountRead.of(account)) };
  }
}
