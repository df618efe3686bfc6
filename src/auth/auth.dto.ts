import { ApiProperty } from '@nestjs/swagger';
import { SessionRead } from '../sessions/session.dto.js';
import type { PermissionList } from '../access/permissions.js';
import { UserRead } from '../users/user.dto.js';
import type { Binding, Principal } from '../access/principal.js';

const ACTIONS = { type: 'array', items: { type: 'string' } } as const;

export class TokenRead {
  @ApiProperty({ type: String, format: 'date-time' })
  issuedAt: string;

  @ApiProperty({ type: String, format: 'date-time' })
  expiresAt: string;

  @ApiProperty({
    enum: ['session', 'user'],
    description:
      '`session`: the token names a session and is valid as long as that session. `user`: the token names no session. It is valid as long as its user has a session that existed when the token was issued.',
  })
  binding: Binding;
}

/** The authenticated user, with the permissions of all their roles. */
export class CurrentUserRead extends UserRead {
  @ApiProperty({
    type: 'object',
    properties: { user: ACTIONS, session: ACTIONS, audit: ACTIONS },
    required: ['user', 'session', 'audit'],
    additionalProperties: ACTIONS,
    description:
      'The actions that at least one role of the user allows, by resource, so that a page can hide what the user may not do. Empty in an impersonated session.',
    example: { user: ['list', 'get'], session: ['list'], audit: [] },
  })
  permissions: PermissionList;

  static ofPrincipal({ user, permissions }: Principal, now: Date): CurrentUserRead {
    return Object.assign(UserRead.of(user, now), { permissions: permissions.list });
  }
}

/** The token of the request, its user, and the session that the token names. */
export class CurrentSessionRead {
  @ApiProperty({ type: SessionRead, nullable: true })
  session: SessionRead | null;

  @ApiProperty({ type: TokenRead })
  token: TokenRead;

  @ApiProperty({ type: CurrentUserRead })
  user: CurrentUserRead;

  static of(principal: Principal, now: Date): CurrentSessionRead {
    const { session, token, binding, can } = principal;
    return {
      session: session && SessionRead.of(session, session.id, can({ session: ['list'] })),
      token: {
        issuedAt: new Date(token.issuedAt * 1000).toISOString(),
        expiresAt: new Date(token.expiresAt * 1000).toISOString(),
        binding,
      },
      user: CurrentUserRead.ofPrincipal(principal, now),
    };
  }
}
