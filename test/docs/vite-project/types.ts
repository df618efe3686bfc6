import type { Gatehouse } from '@gatehouse/client';

/** Compiles only if the problems of an operation are a union of their codes and statuses. */
export async function typesOfProblems(gatehouse: Gatehouse, id: string) {
  const params = { path: { id } };
  const { error } = await gatehouse.PUT('/api/v1/users/{id}/role', {
    params,
    body: { role: 'admin' },
  });
  if (error?.code === 'RATE_LIMITED') error.status satisfies 429;
  if (error?.code === 'SELF_DEMOTION') error.status satisfies 409;
  if (error?.code === 'NOT_SIGNED_IN') return;
  // @ts-expect-error -- only a change of the role has this problem
  if ((await gatehouse.GET('/api/v1/auth/me')).error?.code === 'SELF_DEMOTION') return;
}

/** Compiles only if a list has the type of its items, also if it has a second media type. */
export async function typesOfLists(gatehouse: Gatehouse) {
  const { data } = await gatehouse.GET('/api/v1/audit-events');
  data?.pagination.nextCursor satisfies string | null | undefined;
  for await (const { at } of gatehouse.each('/api/v1/audit-events')) at satisfies string;
  for await (const { email } of gatehouse.each('/api/v1/users')) email satisfies string;
  // @ts-expect-error -- this route is not a list
  gatehouse.each('/api/v1/auth/me');
  // @ts-expect-error -- the list has no such filter
  gatehouse.each('/api/v1/users', { colour: 'red' });
}
