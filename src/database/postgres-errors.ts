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

/** Whether PostgreSQL cannot read a text as an id, such as `abc` for a uuid or an integer. */
export function isInvalidId(error: unknown): boolean {
  // 22P02: invalid_text_representation. 22003: numeric_value_out_of_range.
  return error instanceof Error && 'code' in error && /^(22P02|22003)$/.test(String(error.code));
}
