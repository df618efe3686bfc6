import { ApiProperty } from '@nestjs/swagger';
import type { UserRow } from '../access/principal.js';
import { isBanned, rolesOf } from '../access/user-rules.js';

/** A user in the form for clients. */
export class UserRead {
  @ApiProperty({ example: 'byw0aIRDRyss66n3MiWozxo255p7Y1CP' })
  id: string;

  // No `format`: Better-Auth can accept addresses that are not valid in this sense.
  @ApiProperty({ example: 'ada@example.com' })
  email: string;

  @ApiProperty()
  emailVerified: boolean;

  @ApiProperty({ example: 'Ada Lovelace' })
  name: string;

  @ApiProperty({ type: String, nullable: true, example: null })
  image: string | null;

  @ApiProperty({
    type: String,
    nullable: true,
    description: 'The stored text: roles joined by commas',
    example: 'user,support',
  })
  role: string | null;

  @ApiProperty({
    type: [String],
    description: 'The same roles as a list',
    example: ['user', 'support'],
  })
  roles: string[];

  @ApiProperty({ description: 'Whether the user is banned now', example: false })
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

/** PostgreSQL's `infinity` becomes an invalid date in JavaScript. It means never. */
function timeOrNever(time: Date | null): string | null {
  return time !== null && Number.isFinite(time.getTime()) ? time.toISOString() : null;
}
