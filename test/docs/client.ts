import { type Gatehouse, orThrow, ProblemError } from '@gatehouse/client';

export async function greet(gatehouse: Gatehouse): Promise<string> {
  const { data: me, error } = await gatehouse.GET('/api/v1/auth/me');
  if (me) return `Hello, ${me.name}.`;
  if (error.status === 401) return 'Please sign in again.';
  if (error.code !== 'USER_BANNED') throw new ProblemError(error);
  const { banReason, banExpires } = error;
  return `You are banned until ${banExpires ?? 'further notice'}: ${banReason ?? 'no reason given'}.`;
}

export async function rename(gatehouse: Gatehouse, id: string, change: (name: string) => string) {
  const path = { id };
  for (;;) {
    const read = await gatehouse.GET('/api/v1/users/{id}', { params: { path } });
    const { name } = await orThrow(read);
    const header = { 'If-Match': read.response.headers.get('etag') ?? '*' };
    const written = await gatehouse.PATCH('/api/v1/users/{id}', {
      params: { path, header },
      body: { name: change(name) },
    });
    // Somebody else has changed the user meanwhile. Read it again.
    if (written.error?.code !== 'PRECONDITION_FAILED') return orThrow(written);
  }
}

export async function namesOf(gatehouse: Gatehouse, q: string): Promise<string[]> {
  const names: string[] = [];
  for await (const user of gatehouse.each('/api/v1/users', { q, total: 'none' })) {
    names.push(user.name);
  }
  return names;
}

export async function mySessions(gatehouse: Gatehouse, myId: string) {
  const { items } = await orThrow(
    gatehouse.GET('/api/v1/users/{id}/sessions', { params: { path: { id: myId } } }),
  );
  return items;
}

export async function signOutFrom(gatehouse: Gatehouse, myId: string, sessionId: string) {
  const result = await gatehouse.DELETE('/api/v1/users/{id}/sessions/{sessionId}', {
    params: { path: { id: myId, sessionId } },
  });
  // It has ended already, perhaps by the first of two attempts.
  if (result.error?.code === 'SESSION_NOT_FOUND') return;
  await orThrow(result);
}

export async function signOutElsewhere(gatehouse: Gatehouse, myId: string) {
  const params = { path: { id: myId }, query: { except: 'current' } } as const;
  await orThrow(gatehouse.DELETE('/api/v1/users/{id}/sessions', { params }));
}
