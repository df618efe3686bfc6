/** `code` says what it is and what to do about it: docs/errors.md. */
export interface Problem {
  status: number;
  code: string;
  title: string;
  banReason?: string | null;
  banExpires?: string | null;
}

export class Refusal extends Error {
  constructor(readonly problem: Problem) {
    super(problem.title);
  }
}

export class Gatehouse {
  private token: string | undefined;

  constructor(
    private readonly api: string, // https://api.example.com/api/v1
    private readonly auth: string, // https://auth.example.com/api/auth
    // A browser has the cookie of its sign-in. Others, where Better-Auth has the plugin bearer(), say
    // { headers: { authorization: `Bearer ${sessionToken}` } }
    private readonly signedIn: RequestInit = { credentials: 'include' },
  ) {}

  async call<Body>(
    method: string,
    path: string,
    { body, ifMatch }: { body?: object; ifMatch?: string | null } = {},
  ): Promise<{ body: Body; etag: string | null }> {
    for (let attempt = 1; ; attempt += 1) {
      this.token ??= await this.newToken();
      const response = await fetch(this.api + path, {
        method,
        headers: {
          authorization: `Bearer ${this.token}`,
          ...(body ? { 'content-type': 'application/json' } : {}),
          ...(ifMatch ? { 'if-match': ifMatch } : {}),
        },
        body: body ? JSON.stringify(body) : null,
      });
      if (response.ok)
        return { body: (await response.json()) as Body, etag: response.headers.get('etag') };

      const problem = (await response.json()) as Problem;
      const seconds = response.headers.get('retry-after'); // comes with every 429 and 503
      const expired = problem.code === 'AUTH_TOKEN_EXPIRED';
      if (attempt === 3 || !(expired || seconds)) throw new Refusal(problem);
      if (expired) this.token = undefined;
      else await new Promise((resolve) => setTimeout(resolve, Number(seconds) * 1000));
    }
  }

  private async newToken(): Promise<string> {
    const response = await fetch(`${this.auth}/token`, this.signedIn);
    if (response.ok) return ((await response.json()) as { token: string }).token;
    if (response.status !== 401) throw new Error(`Better-Auth answered ${response.status}`);
    throw new Refusal({ status: 401, code: 'AUTH_SESSION_REVOKED', title: 'Not signed in' });
  }
}

export interface User {
  id: string;
  name: string;
  email: string;
}

export async function greet(gatehouse: Gatehouse): Promise<string> {
  try {
    const { body: me } = await gatehouse.call<User>('GET', '/auth/me');
    return `Hello, ${me.name}.`;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const { code, banReason, banExpires } = error.problem;
    switch (code) {
      case 'AUTH_SESSION_REVOKED':
      case 'AUTH_TOKEN_INVALID':
        return 'Please sign in again.';
      case 'USER_BANNED':
        return `You are banned until ${banExpires ?? 'further notice'}: ${banReason ?? 'no reason given'}.`;
      default:
        throw error;
    }
  }
}

export async function rename(gatehouse: Gatehouse, id: string, change: (name: string) => string) {
  for (;;) {
    const { body: user, etag } = await gatehouse.call<User>('GET', `/users/${id}`);
    const body = { name: change(user.name) };
    try {
      return await gatehouse.call<User>('PATCH', `/users/${id}`, { body, ifMatch: etag });
    } catch (error) {
      // 412: somebody else has changed the user meanwhile. Look again.
      if (!(error instanceof Refusal && error.problem.status === 412)) throw error;
    }
  }
}

export async function* everyUser(gatehouse: Gatehouse, filter: Record<string, string> = {}) {
  const query = new URLSearchParams({ ...filter, limit: '100', total: 'none' });
  for (;;) {
    const { body } = await gatehouse.call<{
      items: User[];
      pagination: { nextCursor: string | null };
    }>('GET', `/users?${query.toString()}`);
    yield* body.items;
    if (body.pagination.nextCursor === null) return;
    query.set('cursor', body.pagination.nextCursor);
  }
}

export interface Session {
  id: string;
  current: boolean;
  device: { browser: string | null; system: string | null };
}

export async function mySessions(gatehouse: Gatehouse, myId: string): Promise<Session[]> {
  const { body } = await gatehouse.call<{ items: Session[] }>('GET', `/users/${myId}/sessions`);
  return body.items;
}

export async function signOutFrom(gatehouse: Gatehouse, myId: string, sessionId: string) {
  await gatehouse.call('DELETE', `/users/${myId}/sessions/${sessionId}`);
}

export async function signOutElsewhere(gatehouse: Gatehouse, myId: string) {
  await gatehouse.call('DELETE', `/users/${myId}/sessions?except=current`);
}
