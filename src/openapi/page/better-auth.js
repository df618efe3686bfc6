/** An error whose message tells the user what to do. */
export class SignInError extends Error {}

/**
 * Better-Auth, as the browser calls it. Its cookie holds the session. If the browser does not send
 * that cookie from this page, this object holds the credential of the `bearer()` plugin instead.
 */
export class BetterAuth {
  #origin;
  #url;
  /** @type {string | null} */
  #bearer = null;

  /** @param {string} url the address of the server, without `/api/auth` */
  constructor(url) {
    this.#origin = new URL(url).origin;
    this.#url = `${url.replace(/\/+$/, '')}/api/auth`;
  }

  /** Better-Auth also responds with 200 without a session, so the browser logs no error. */
  async hasSession() {
    const { body } = await this.#request('get-session');
    return body !== null;
  }

  /**
   * @param {string} email
   * @param {string} password
   * @returns {Promise<'signed-in' | 'code-required'>}
   */
  async signIn(email, password) {
    this.#bearer = null;
    const { headers, body } = await this.#request('sign-in/email', { email, password });
    if (body?.twoFactorRedirect !== true) {
      await this.#keepSession(headers);
      return 'signed-in';
    }
    /** @type {string[]} */
    const methods = body.twoFactorMethods ?? ['totp'];
    if (methods.includes('totp')) return 'code-required';
    throw new SignInError(
      'Your second factor is not an authenticator app. Sign in at Better-Auth in this browser, then reload this page.',
    );
  }

  /** @param {string} code */
  async verifyCode(code) {
    const { headers } = await this.#request('two-factor/verify-totp', { code });
    await this.#keepSession(headers);
  }

  /** Returns a new token, or null if the session has ended. */
  async fetchToken() {
    const { status, body } = await this.#request('token', undefined, [401]);
    return status === 401 ? null : String(body?.token);
  }

  async signOut() {
    await this.#request('sign-out', {});
    this.#bearer = null;
  }

  /** @param {Headers} headers */
  async #keepSession(headers) {
    if (await this.hasSession()) return;
    this.#bearer = headers.get('set-auth-token');
    if (this.#bearer !== null) return;
    throw new SignInError(
      `This browser does not send the cookie of ${this.#origin} from this page, because they are different sites. Put both below one domain, or add the plugin bearer() to Better-Auth.`,
    );
  }

  /**
   * @param {string} path
   * @param {object} [input] makes it a POST
   * @param {number[]} [allowed] other statuses that are no error
   */
  async #request(path, input, allowed = []) {
    /** @type {Record<string, string>} */
    const headers = this.#bearer === null ? {} : { authorization: `Bearer ${this.#bearer}` };
    /** @type {RequestInit} */
    const init = { credentials: 'include', cache: 'no-store', headers };
    if (input !== undefined) {
      init.method = 'POST';
      init.body = JSON.stringify(input);
      headers['content-type'] = 'application/json';
    }
    const response = await fetch(`${this.#url}/${path}`, init).catch(() => undefined);
    if (response === undefined) throw new SignInError(await this.#unreachable());
    const body = await response.json().catch(() => null);
    const { ok, status } = response;
    if (!ok && !allowed.includes(status)) throw new SignInError(this.#refusal(response, body));
    return { status, headers: response.headers, body };
  }

  /**
   * Browsers hide from a page why a request failed. A request without CORS, whose response the page
   * cannot read, still shows whether the server runs.
   */
  async #unreachable() {
    const probe = fetch(`${this.#url}/ok`, { mode: 'no-cors', credentials: 'omit' });
    const isUp = await probe.then(
      () => true,
      () => false,
    );
    return isUp
      ? `${this.#origin} does not allow requests from this page. Allow the origin ${location.origin} there, in its CORS settings with credentials and in trustedOrigins of Better-Auth.`
      : `${this.#origin} does not respond. Check that Better-Auth runs, and that BETTER_AUTH_URL of Gatehouse is an address that your browser can reach.`;
  }

  /**
   * @param {Response} response
   * @param {{ code?: string, message?: string } | null} body
   */
  #refusal({ status, headers }, body) {
    switch (body?.code ?? '') {
      case 'INVALID_EMAIL_OR_PASSWORD':
        return 'Invalid email or password';
      case 'BANNED_USER':
        return `You are banned. ${body?.message ?? ''}`.trim();
      case 'EMAIL_NOT_VERIFIED':
        return 'Verify your email address first, with the link that Better-Auth sent to you.';
      case 'INVALID_ORIGIN':
      case 'MISSING_OR_NULL_ORIGIN':
        return `Better-Auth does not trust this page. Add ${location.origin} to trustedOrigins of Better-Auth.`;
      case 'INVALID_CODE':
        return 'The code is wrong or has expired. Enter the code that the app shows now.';
      case 'INVALID_TWO_FACTOR_COOKIE':
        return 'The sign-in took too long, or this browser does not send the cookies of Better-Auth from this page. Choose Cancel and start again.';
      default:
        return this.#refusalByStatus(status, headers, body?.message);
    }
  }

  /**
   * @param {number} status
   * @param {Headers} headers
   * @param {string | undefined} message
   */
  #refusalByStatus(status, headers, message) {
    if (status === 429) {
      const seconds = Number(headers.get('x-retry-after')) || 60;
      return `Too many attempts. Wait ${seconds} seconds, then try again.`;
    }
    if (status === 404) {
      return `There is no sign-in with email and password at ${this.#url}. Check BETTER_AUTH_URL of Gatehouse.`;
    }
    if (status >= 500) return `Better-Auth failed with status ${status}. Its log has the reason.`;
    return message ?? `Better-Auth refused the request with status ${status}.`;
  }
}
