import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsOptional } from 'class-validator';
import { PlainText } from '../validation/plain-text.js';
import type { Account } from '../better-auth/account.entity.js';

export class AccountFilter {
  @ApiPropertyOptional({
    description: 'Only accounts of this provider',
    example: 'github',
    maxLength: 100,
  })
  @IsOptional()
  @PlainText(1, 100)
  provider?: string;
}

/** A linked sign-in account, without its password and tokens. */
export class AccountRead {
  @ApiProperty()
  id: string;

  @ApiProperty({ example: 'github' })
  providerId: string;

  @ApiProperty({ description: 'The id of the user at the provider' })
  accountId: string;

  @ApiProperty({ type: [String], example: ['read:user', 'user:email'] })
  scopes: string[];

  @ApiProperty({ type: String, format: 'date-time' })
  createdAt: string;

  @ApiProperty({ type: String, format: 'date-time' })
  updatedAt: string;

  static of(account: Account): AccountRead {
    return {
      id: account.id,
      providerId: account.providerId,
      accountId: account.accountId,
      scopes: account.scope?.split(',').filter((scope) => scope !== '') ?? [],
      createdAt: account.createdAt.toISOString(),
      updatedAt: account.updatedAt.toISOString(),
    };
  }
}

export class AccountList {
  @ApiProperty({ type: [AccountRead] })
  items: AccountRead[];
}
