/** SQLSTATE classes and Node errors that mean "database unavailable", not "wrong query". */
const UNAVAILABLE_CODES =
  /^(08...|28...|3D000|55000|57P0[1-5]|53[0-4]00|58...|57014|25006|ECONN(REFUSED|RESET|ABORTED)|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN)$/;

/** Messages of `pg` and `pg-pool`, which set no code on these errors. */
const UNAVAILABLE_MESSAGES =
  /^(timeout exceeded when trying to connect|Connection terminated|Client has encountered a connection error|Client was closed|Query read timeout|timeout expired|Cannot use a pool after calling end)/;

/** Whether an error means that the database is unreachable or temporarily unable to respond. */
export function isDatabaseUnavailable(error: unknown): boolean {
  // Not `instanceof Error`: under Jest, Node's errors come from another realm.
  if (typeof error !== 'object' || error === null) return false;
  if (
    'errors' in error &&
    Array.isArray(error.errors) &&
    error.errors.some(isDatabaseUnavailable)
  ) {
    return true;
  }
  if ('code' in error && UNAVAILABLE_CODES.test(String(error.code))) return true;
  if ('message' in error && UNAVAILABLE_MESSAGES.test(String(error.message))) return true;
  return 'cause' in error && isDatabaseUnavailable(error.cause);
}

/** Whether PostgreSQL rejected a value as invalid for the column type, such as 30 February. */
export function isInvalidValue(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^22...$/.test(String(error.code));
}

export type RejectedValue = 'unreadable-id' | 'nul-character' | 'too-long' | 'constraint';

/** Why PostgreSQL rejected the values of a query, if it did. */
export function rejectedValue(error: unknown): RejectedValue | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  // `pg` sends texts with a NUL character in such a way that the message itself is invalid.
  const isMessage = error.code === '08P01' && /invalid message format/.test(error.message);
  return isMessage ? 'nul-character' : REJECTED_VALUES[String(error.code)];
}

const REJECTED_VALUES: Record<string, RejectedValue> = {
  // A text such as `abc` for a uuid or an integer.
  '22P02': 'unreadable-id',
  '22003': 'unreadable-id',
  '22021': 'nul-character',
  '22001': 'too-long',
  '23503': 'constraint',
  '23505': 'constraint',
};
