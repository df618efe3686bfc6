import { ApiProperty } from '@nestjs/swagger';
import { SessionRead } from '../sessions/session.dto.js';
import { UserRead } from '../users/user.dto.js';
import type { Binding, Principal } from '../access/principal.js';

export class TokenRead {
  @ApiProperty({ type: String, format: 'date-time' })
  issuedAt: string;

  @ApiProperty({ type: String, format: 'date-time' })
  expiresAt: string;

  @ApiProperty({
    enum: ['session', 'user'],
    description:
      '`session`: the token names its session and ends with it. `user`: it names none, and ends when its user has no session left that is as old as it.',
  })
  binding: Binding;
}

/** What this request is: the token, the session it names and the user. */
export class CurrentSessionRead {
  @ApiProperty({ type: SessionRead, nullable: true })
  session: SessionRead | null;

  @ApiProperty({ type: TokenRead })
  token: TokenRead;

  @ApiProperty({ type: UserRead })
  user: UserRead;

  static of({ user, session, token, binding, isAdmin }: Principal, now: Date): CurrentSessionRead {
    return {
      session: session && SessionRead.of(session, session.id, isAdmin),
      token: {
        issuedAt: new Date(token.issuedAt * 1000).toISOString(),
        expiresAt: new Date(token.expiresAt * 1000).toISOString(),
        binding,
      },
      user: UserRead.of(user, now),
    };
  }
}
