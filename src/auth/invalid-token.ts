/** `busy`: the signature was not verified, because the CPU budget was used up. */
export type TokenFailure = 'invalid' | 'expired' | 'keys-unavailable' | 'busy';

/** The token is not accepted. `reason` is a short, stable code without the token. */
export class InvalidTokenError extends Error {
  override readonly name = 'InvalidTokenError';

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
