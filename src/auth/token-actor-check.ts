import { Injectable } from '@nestjs/common';
import { ActorCheck } from '../access/actor-check.js';
import { requirePermissions, type RequiredPermissions } from '../access/permissions.js';
import type { Principal } from '../access/principal.js';
import { AuthService } from './auth.service.js';

@Injectable()
export class TokenActorCheck extends ActorCheck {
  constructor(private readonly auth: AuthService) {
    super();
  }

  /** Looks up the user and the session again. The token was verified once and may have expired. */
  async requirePermissions({ token }: Principal, required: RequiredPermissions): Promise<void> {
    const { permissions } = await this.auth.resolve(token);
    requirePermissions(permissions, required);
  }
}
