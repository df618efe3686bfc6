import { Injectable } from '@nestjs/common';
import { problem } from '../problems/problem.js';
import { JwtStrategy } from './jwt.strategy.js';
import type { Principal } from '../access/principal.js';

/** For an answer that takes long: whether its caller is still who the guards accepted. */
@Injectable()
export class ActorCheck {
  constructor(private readonly strategy: JwtStrategy) {}

  /** The token was verified once and may expire meanwhile; its user and session are looked up again. */
  async requireAdmin({ token }: Principal): Promise<void> {
    const { isAdmin } = await this.strategy.validate(token);
    if (!isAdmin) throw problem('AUTH_FORBIDDEN');
  }
}
