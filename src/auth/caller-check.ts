import { Injectable } from '@nestjs/common';
import { problem } from '../common/problem.js';
import { Environment } from '../config/environment.js';
import { JwtStrategy } from './jwt.strategy.js';
import type { Principal } from './principal.js';
import { isAdmin } from './user-rules.js';

/** For an answer that takes long: whether its caller is still who the guards accepted. */
@Injectable()
export class CallerCheck {
  constructor(
    private readonly strategy: JwtStrategy,
    private readonly environment: Environment,
  ) {}

  /** The token was verified once and may expire meanwhile; its user and session are looked up again. */
  async requireAdmin({ token }: Principal): Promise<void> {
    const { user } = await this.strategy.validate(token);
    if (!isAdmin(user, this.environment)) throw problem('AUTH_FORBIDDEN');
  }
}
