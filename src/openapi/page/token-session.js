import { SignInError } from './better-auth.js';

/** A token is renewed this long before it expires, so that it does not expire during a request. */
const RENEWAL_MARGIN_MS = 30_000;

/**
 * Stands for the token in Swagger UI, which shows the headers of each request. The token itself
 * stays in `TokenSession`, which sends the request.
 */
export const PLACEHOLDER = '<token>';

/** @typedef {{ name: string, roles: string[] }} User */

/** Holds the token of the signed-in user, and renews it. */
export class TokenSession {
  #betterAuth;
  #onEnd;
  /** @type {string | null} */
  #token = null;
  /** @type {string | null} */
  #userId = null;
  #renewAt = 0;
  /** @type {Promise<void> | null} */
  #renewal = null;

  /**
   * @param {import('./better-auth.js').BetterAuth} betterAuth
   * @param {(message: string) => void} onEnd runs when the session can no longer be used
   */
  constructor(betterAuth, onEnd) {
    this.#betterAuth = betterAuth;
    this.#onEnd = onEnd;
  }

  /** Gets the first token. Returns the user as Gatehouse reads it from the database. */
  async open() {
    await this.#renew();
    if (this.#token === null) throw new SignInError('Better-Auth has no session for this browser.');
    const response = await this.#sendOnce('/api/v1/auth/me', {});
    const body = await response.json();
    if (response.ok) return /** @type {User} */ (body);
    this.close();
    if (body.code === 'USER_BANNED') {
      throw new SignInError(`You are banned. ${body.banReason ?? 'No reason was given.'}`);
    }
    throw new SignInError(`Gatehouse does not accept the token. ${body.title}: ${body.detail}`);
  }

  close() {
    this.#token = null;
    this.#userId = null;
  }

  /**
   * Sends a request of Swagger UI with the token, in the form of `fetch`.
   *
   * @param {string} url
   * @param {RequestInit & { headers: Record<string, string> }} request
   */
  async send(url, request) {
    if (Date.now() >= this.#renewAt) await this.#renew();
    const sent = this.#token;
    const response = await this.#sendOnce(url, request);
    if (response.status !== 401 || sent === null) return response;
    const code = await codeOf(response);
    if (code === 'AUTH_SESSION_REVOKED') this.#end(SESSION_ENDED);
    if (code !== 'AUTH_TOKEN_EXPIRED') return response;
    await this.#renew();
    return this.#token === null ? response : this.#sendOnce(url, request);
  }

  /**
   * @param {string} url
   * @param {RequestInit & { headers?: Record<string, string> }} request
   */
  #sendOnce(url, request) {
    const headers = new Headers(request.headers);
    headers.delete('authorization');
    if (this.#token !== null) headers.set('authorization', `Bearer ${this.#token}`);
    return fetch(url, { ...request, headers });
  }

  /** Requests at the same time share one renewal. */
  #renew() {
    this.#renewal ??= this.#fetchToken().finally(() => {
      this.#renewal = null;
    });
    return this.#renewal;
  }

  async #fetchToken() {
    const token = await this.#betterAuth.fetchToken();
    if (token === null) {
      if (this.#token !== null) this.#end(SESSION_ENDED);
      return;
    }
    const { iat, exp, sub } = claimsOf(token);
    // A sign-in in another tab replaces the cookie of Better-Auth. This page shows the first user.
    if (this.#userId !== null && sub !== this.#userId) return this.#end(OTHER_USER);
    this.#token = token;
    this.#userId = sub;
    // Uses the lifetime, because the clock of this computer can differ from that of Better-Auth.
    this.#renewAt = Date.now() + (exp - iat) * 1000 - RENEWAL_MARGIN_MS;
  }

  /** @param {string} message */
  #end(message) {
    this.close();
    this.#onEnd(message);
  }
}

const SESSION_ENDED = 'Your session has ended. Sign in again.';
const OTHER_USER = 'Another user has signed in at Better-Auth in this browser. Reload the page.';

/** @param {Response} response */
async function codeOf(response) {
  const body = await response
    .clone()
    .json()
    .catch(() => null);
  return body?.code;
}

/**
 * @param {string} token
 * @returns {{ iat: number, exp: number, sub: string }}
 */
function claimsOf(token) {
  const [, payload = ''] = token.split('.');
  return JSON.parse(atob(payload.replaceAll('-', '+').replaceAll('_', '/')));
}
