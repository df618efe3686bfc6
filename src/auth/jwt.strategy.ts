import { Injectable } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import type { Request } from 'express';
import passportJwt, { type VerifyCallback } from 'passport-jwt';
import type { Principal, VerifiedToken } from '../access/principal.js';
import { AuthService } from './auth.service.js';
import { bearerError, parseBearer } from './bearer.js';
import { TokenVerifier } from './token-verifier.js';

/**
 * passport-jwt verifies with `jsonwebtoken`, which does not support EdDSA, Better-Auth's default.
 * So this class verifies with the TokenVerifier. All else is as in passport-jwt.
 */
class VerifierStrategy extends passportJwt.Strategy {
  constructor(
    private readonly verifier: TokenVerifier,
    private readonly validated: VerifyCallback,
  ) {
    // Only passport-jwt's own `authenticate` reads these. With them, it would refuse every request.
    super({ jwtFromRequest: () => null, secretOrKeyProvider: () => undefined }, validated);
  }

  override authenticate({ bearer, headers, signatureBudget }: Request): void {
    // Passport sets these functions for each request, but on the one object that it was given.
    const { success, error, fail } = this as PassportActions;
    const token = bearer ? bearer.text : parseBearer(headers.authorization);
    if (token === undefined) return fail(bearerError(headers.authorization), 401);
    this.verifier.verify(token, signatureBudget, bearer?.digest).then(
      (verified) => this.validated(verified, (e, user) => (user ? success(user) : error(e))),
      (invalid) => fail(invalid, 401),
    );
  }
}

interface PassportActions {
  success: (principal: unknown) => void;
  error: (error: unknown) => void;
  fail: (reason: unknown, status: number) => void;
}

/** Passport's strategy: the verifier reads the token, and the AuthService finds its principal. */
@Injectable()
export class JwtStrategy extends PassportStrategy(VerifierStrategy, 'jwt') {
  constructor(
    verifier: TokenVerifier,
    private readonly auth: AuthService,
  ) {
    super(verifier);
  }

  validate(token: VerifiedToken): Promise<Principal> {
    return this.auth.resolve(token);
  }
}
