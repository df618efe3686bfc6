import { Injectable } from '@nestjs/common';
import { ActorCheck } from '../access/actor-check.js';
import type { Principal } from '../access/principal.js';
import { problem } from '../problems/problem.js';
import { AuthService } from './auth.service.js';

@Injectable()
export class TokenActorCheck extends ActorCheck {
  constructor(private readonly auth: AuthService) {
    super();
  }

  /** Looks up the user and the session again. The token was verified once and may have expired. */
  async requireAdmin({ token }: Principal): Promise<void> {
    const { isAdmin } = await this.auth.resolve(token);
    if (!isAdmin) throw problem('AUTH_FORBIDDEN');
  }
}
