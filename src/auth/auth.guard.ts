import { type ExecutionContext, Injectable } from '@nestjs/common';
import { AuthGuard as PassportGuard } from '@nestjs/passport';
import type { Request } from 'express';
import type { Principal } from '../access/principal.js';
import { routeAccess } from '../access/route-access.js';
import { requestOf, responseOf } from '../http/request-of.js';
import { inSpan } from '../tracing/tracing.js';
import { AuthEvents } from './auth-events.js';
import { AuthFailures } from './auth-failures.js';
import { AuthMetrics } from './auth-metrics.js';
import { AuthService } from './auth.service.js';
import { digestOf, parseBearer } from './bearer.js';
import { toProblem } from './invalid-token.js';
import { JwtStrategy } from './jwt.strategy.js';

/** Runs before every route. A route is private unless it has `@Public()`. */
@Injectable()
export class AuthGuard extends PassportGuard() {
  constructor(
    strategy: JwtStrategy,
    private readonly auth: AuthService,
    private readonly failures: AuthFailures,
    private readonly events: AuthEvents,
    private readonly metrics: AuthMetrics,
  ) {
    // Passport takes a strategy in place of its name. Names belong to the process, and a second
    // application in it would replace the strategy of the first.
    super({ defaultStrategy: strategy, property: 'principal' });
  }

  /** A cached token needs no Passport and no promise. */
  override canActivate(context: ExecutionContext): true | Promise<true> {
    if (routeAccess(context).isPublic) return true;
    const request = this.getRequest(context);
    const text = parseBearer(request.headers.authorization);
    const digest = text === undefined ? '' : digestOf(text);
    const principal = this.auth.authenticateFromCache(digest);
    if (principal) return this.accept(principal, request);

    request.bearer = { text, digest };
    return this.authenticate(context, request);
  }

  private async authenticate(context: ExecutionContext, request: Request): Promise<true> {
    this.events.warnAboutIgnoredProxy(request);
    const authenticate = async () => super.canActivate(context);
    try {
      await inSpan('authenticate', () =>
        this.failures.limit(request, responseOf(request), authenticate),
      );
    } catch (error) {
      this.metrics.failed(error);
      throw error;
    }
    return this.accept(request.principal as Principal, request);
  }

  /** Passport's guard asks for the request, and would assume a route. */
  override getRequest(context: ExecutionContext): Request {
    const request = requestOf(context);
    if (!request) throw new Error(NO_REQUEST);
    return request;
  }

  /** Passport calls this with its result. `info` is the reason why there is no valid token. */
  override handleRequest<User>(error: unknown, principal: User | false, info: unknown): User {
    if (!principal) throw toProblem(error ?? info);
    return principal;
  }

  private accept(principal: Principal, request: Request): true {
    request.principal = principal;
    this.metrics.accepted += 1;
    this.events.accepted(principal, request);
    return true;
  }
}

const NO_REQUEST =
  'The guards protect HTTP routes and GraphQL resolvers, but not messages of a WebSocket or a ' +
  'microservice. Authenticate the connection when it opens, by AuthService.authenticate(), and ' +
  'mark its handlers with @Public().';
