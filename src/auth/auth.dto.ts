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
      '`session`: the token names a session and is valid as long as that session. `user`: the token names no session. It is valid as long as its user has a session that is not younger than the token.',
  })
  binding: Binding;
}

/** The token of the request, its user, and the session that the token names. */
export class CurrentSessionRead {
  @ApiProperty({ type: SessionRead, nullable: true })
  session: SessionRead | null;

  @ApiProperty({ type: TokenRead })
  token: TokenRead;

  @ApiProperty({ type: UserRead })
  user: UserRead;

  static of({ user, session, token, binding, can }: Principal, now: Date): CurrentSessionRead {
    return {
      session: session && SessionRead.of(session, session.id, can({ session: ['list'] })),
      token: {
        issuedAt: new Date(token.issuedAt * 1000).toISOString(),
        expiresAt: new Date(token.expiresAt * 1000).toISOString(),
        binding,
      },
      user: UserRead.of(user, now),
    };
  }
}
