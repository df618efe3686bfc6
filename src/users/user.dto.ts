import { ApiProperty } from '@nestjs/swagger';
import type { UserRow } from '../access/principal.js';
import { isBanned, rolesOf } from '../access/user-rules.js';

/** A user as clients see one. */
export class UserRead {
  @ApiProperty({ example: 'byw0aIRDRyss66n3MiWozxo255p7Y1CP' })
  id: string;

  // Without a format: what Better-Auth let in goes out as it is.
  @ApiProperty({ example: 'ada@example.com' })
  email: string;

  @ApiProperty()
  emailVerified: boolean;

  @ApiProperty({ example: 'Ada Lovelace' })
  name: string;

  @ApiProperty({ type: String, nullable: true, example: null })
  image: string | null;

  @ApiProperty({ type: String, nullable: true, description: 'As stored', example: 'user,support' })
  role: string | null;

  @ApiProperty({ type: [String], description: 'The same as a list', example: ['user', 'support'] })
  roles: string[];

  @ApiProperty({ description: 'Whether a ban is in force now' })
  banned: boolean;

  @ApiProperty({ type: String, nullable: true, example: null })
  banReason: string | null;

  @ApiProperty({ type: String, format: 'date-time', nullable: true, example: null })
  banExpires: string | null;

  @ApiProperty({ type: String, format: 'date-time' })
  createdAt: string;

  @ApiProperty({ type: String, format: 'date-time' })
  updatedAt: string;

  static of(user: UserRow, now: Date): UserRead {
    return {
      id: user.id,
      email: user.email,
      emailVerified: user.emailVerified,
      name: user.name,
      image: user.image,
      role: user.role,
      roles: rolesOf(user),
      banned: isBanned(user, now),
      banReason: user.banReason,
      banExpires: timeOrNever(user.banExpires),
      createdAt: user.createdAt.toISOString(),
      updatedAt: user.updatedAt.toISOString(),
    };
  }
}

/** PostgreSQL's `infinity` is no date here. */
function timeOrNever(time: Date | null): string | null {
  return time !== null && Number.isFinite(time.getTime()) ? time.toISOString() : null;
}
