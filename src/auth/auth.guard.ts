import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { Request } from 'express';
import { AuthEvents } from './auth-events.js';
import { PUBLIC, ROLES, SELF, VERIFIED } from './decorators.js';
import { JwtStrategy } from './jwt.strategy.js';

/** Before every route: private, unless it says `@Public()`. */
@Injectable()
export class AuthGuard implements CanActivate {
  constructor(
    private readonly reflector: Reflector,
    private readonly strategy: JwtStrategy,
    private readonly events: AuthEvents,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const target = [context.getHandler(), context.getClass()];
    if (this.reflector.getAllAndOverride<boolean>(PUBLIC, target) && !this.asksMore(context)) {
      return true;
    }

    const request = context.switchToHttp().getRequest<Request>();
    try {
      request.principal = await this.strategy.decide(request);
    } catch (error) {
      this.events.failed(error, request);
      throw error;
    }
    this.events.accepted(request.principal, request);
    return true;
  }

  /** A route that asks for a role is not public, whatever its class says. */
  private asksMore(context: ExecutionContext): boolean {
    const handler = context.getHandler();
    return [ROLES, SELF, VERIFIED].some(
      (demand) => this.reflector.get(demand, handler) !== undefined,
    );
  }
}
