import type { BetterAuth } from '../../tools/better-auth.ts';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { registerSecret, registerToken } from '../support/leak-detector.js';
import { type Stack, startStack } from '../support/stack.js';

/** A browser. Better-Auth accepts its cached cookies without a lookup of the session. */
class Browser {
  private readonly cookies = new Map<string, string>();

  constructor(private readonly auth: BetterAuth) {}

  async signIn({ email, password }: TestUser): Promise<void> {
    const response = await this.send('/sign-in/email', { email, password });
    expect(response.status).toBe(200);
  }

  async token(): Promise<string> {
    const response = await this.send('/token');
    expect(response.status).toBe(200);
    const { token } = (await response.json()) as { token: string };
    registerToken(token);
    return token;
  }

  async sessionId(): Promise<string> {
    const response = await this.send('/get-session');
    const { session } = (await response.json()) as { session: { id: string } };
    return session.id;
  }

  private async send(path: string, body?: object): Promise<Response> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(`${this.auth.url}/api/auth${path}`, {
      method: body ? 'POST' : 'GET',
      headers: { origin: this.auth.origin, 'content-type': 'application/json', cookie },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    for (const line of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      this.cookies.set(name, value);
      if (value.length > 20) registerSecret('a cookie', value);
    }
    return response;
  }
}

describe.each(['prefer-sid', 'require-sid', 'token-only'])('residual validity (%s)', (binding) => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack({ cookieCache: 300 }, { SESSION_BINDING: binding });
  });
  afterAll(() => stack.end());

  const call = (token: string, method: string, path: string) =>
    stack.gatehouse.call(`/api/v1/users/${path}`, { method, token });

  /** Ends sessions, signs in again and sends a request with a token for the old cookies. */
  async function tokenOfEndedSession(
    issuer: BetterAuth,
    path: (id: string, sid: string) => string,
  ) {
    const ada = await signUp(issuer);
    const old = new Browser(issuer);
    await old.signIn(ada);
    const token = await stack.authWithSid.tokenFor(ada.session);
    const { status, body } = await call(token, 'DELETE', path(ada.id, await old.sessionId()));
    expect([status, body.success]).toEqual([200, true]);
    await new Browser(issuer).signIn(ada);
    const oldToken = await old.token();
    return { body, token: oldToken, response: await call(oldToken, 'GET', ada.id) };
  }

  it.each([
    ['all sessions', (id: string) => `${id}/sessions`],
    ['one session', (id: string, sid: string) => `${id}/sessions/${sid}`],
  ])(`states how long a token without sid can outlive %s with ${binding}`, async (_what, path) => {
    const { body, token, response } = await tokenOfEndedSession(stack.auth, path);
    const exp = Number(claimsOf(token)['exp']) * 1000;
    if (binding === 'require-sid') {
      expect([response.body.code, body.residual]).toEqual(['AUTH_TOKEN_INVALID', null]);
      return;
    }
    // Better-Auth issued the token from its cookie cache after the session ended. It is accepted.
    expect(response.status).toBe(200);
    expect(Date.parse(body.residual)).toBeGreaterThan(exp);
  });

  it(`accepts a token with the sid of an ended session only if sessions are not checked (${binding})`, async () => {
    const { body, response } = await tokenOfEndedSession(
      stack.authWithSid,
      (id) => `${id}/sessions`,
    );
    if (binding === 'token-only') {
      expect(response.status).toBe(200);
      expect(body.message).toMatch(/does not check sessions\. Tokens stay valid until they expire/);
    } else {
      expect(response.body.code).toBe('AUTH_SESSION_REVOKED');
      expect(body.message).toBe('The sessions have ended.');
    }
  });

  it(`includes the lifetime of a cookie in the residual validity (${binding})`, async () => {
    const ada = await signUp(stack.authWithSid);
    const [row] = await stack.database.sql<{ expiresAt: Date }>(
      'select "expiresAt" from session where "userId" = $1',
      [ada.id],
    );
    const { body } = await call(ada.token, 'DELETE', `${ada.id}/sessions`);
    if (binding === 'require-sid') {
      expect(body.residual).toBeNull();
      return;
    }
    const day = 86_400_000;
    expect(Date.parse(body.residual) - Number(row?.expiresAt)).toBe(day + 10_000);
  });
});
