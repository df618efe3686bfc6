import { ValidationError } from '@mikro-orm/core';

interface DescribedError {
  type: string;
  code?: unknown;
  message?: string;
  /** Names out of the schema, which say more than the code and quote no row. */
  constraint?: unknown;
  table?: unknown;
  column?: unknown;
  stack?: string;
  cause?: DescribedError;
  errors?: DescribedError[];
}

/** What went wrong and where, without the values that it went wrong with. */
export function describeError(error: unknown, depth = 0): DescribedError {
  if (!isError(error)) return { type: typeof error };
  const { cause, errors } = error;
  const deeper = depth < MAX_CAUSE_DEPTH;
  return present({
    type: error.name,
    code: error.code,
    message: quotesValues(error) ? undefined : error.message,
    constraint: error.constraint,
    table: error.table,
    column: error.column,
    stack: framesOf(error),
    cause: deeper && isError(cause) ? describeError(cause, depth + 1) : undefined,
    errors:
      deeper && Array.isArray(errors)
        ? errors.slice(0, MAX_ERRORS).map((each) => describeError(each, depth + 1))
        : undefined,
  });
}

const MAX_CAUSE_DEPTH = 3;
const MAX_ERRORS = 5;

type ErrorLike = Error &
  Partial<Record<'code' | 'errors' | 'constraint' | 'table' | 'column', unknown>>;

// Not `instanceof Error`: under Jest, Node's own errors come from another realm.
function isError(value: unknown): value is ErrorLike {
  return typeof value === 'object' && value !== null && 'message' in value && 'name' in value;
}

function quotesValues(error: ErrorLike): boolean {
  // JSON.parse quotes what it could not read.
  if (error.name === 'SyntaxError') return true;
  // MikroORM's "User not found ({ email: … })".
  if (error instanceof ValidationError) return true;
  return SQLSTATE.test(String(error.code)) && !ABOUT_THE_SERVER.test(String(error.code));
}

// Node's own codes (EPIPE) can be of five capital letters, too.
const SQLSTATE = /^(?=.*\d)[0-9A-Z]{5}$/;

/** Classes of SQLSTATE whose messages speak of connections, limits and locks, never of rows. */
const ABOUT_THE_SERVER = /^(08|25|28|3D|40|53|55|57|58)/;

/** Without the message, which stands above the frames and may look like one. */
function framesOf({ stack, message }: Error): string | undefined {
  return stack
    ?.replaceAll(message, '')
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
    .join('\n');
}

function present(described: { [Key in keyof DescribedError]: DescribedError[Key] | undefined }) {
  return Object.fromEntries(
    Object.entries(described).filter(([, value]) => value !== undefined),
  ) as unknown as DescribedError;
}
