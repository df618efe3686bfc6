/** `busy`: nothing is known of the token, because there was no time left to verify its signature. */
export type TokenFailure = 'invalid' | 'expired' | 'keys-unavailable' | 'busy';

/** A token that is not accepted. `reason` is for operators: short, stable, without the token. */
export class InvalidTokenError extends Error {
  override readonly name = 'TokenRefused';

  constructor(
    readonly failure: TokenFailure,
    readonly reason: string,
  ) {
    super(reason);
  }
}

export function refuse(reason: string): never {
  throw new InvalidTokenError('invalid', reason);
}
