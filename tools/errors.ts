/** An error whose message states the problem and the remedy. It is shown without a stack trace. */
export class DevStackError extends Error {
  override name = 'DevStackError';
}

/** The sentence of a fault, whatever was thrown. */
export function messageOf(fault: unknown): string {
  return stringProperty(fault, 'message') ?? String(fault);
}

/** The code that Node gives a failed system call (`ENOENT`, `EADDRINUSE`), where there is one. */
export function errorCode(fault: unknown): string | undefined {
  return stringProperty(fault, 'code');
}

// Not `instanceof Error`: under Jest, Node's own errors come from another realm.
export function stringProperty(fault: unknown, property: string): string | undefined {
  if (typeof fault !== 'object' || fault === null) return undefined;
  const value: unknown = Reflect.get(fault, property);
  return typeof value === 'string' ? value : undefined;
}
