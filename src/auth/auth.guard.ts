import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { Request } from 'express';
import { AuthEvents } from './auth-events.js';
import { PUBLIC } from './decorators.js';
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
    if (this.reflector.getAllAndOverride<boolean>(PUBLIC, target)) return true;

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
}
