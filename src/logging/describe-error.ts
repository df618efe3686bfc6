import { MetadataError, ValidationError } from '@mikro-orm/core';

interface DescribedError {
  type: string;
  code?: unknown;
  message?: string;
  /** Names from the schema. They help more than the code and contain no row data. */
  constraint?: unknown;
  table?: unknown;
  column?: unknown;
  stack?: string;
  cause?: DescribedError;
  errors?: DescribedError[];
}

/** The parts of an error that a log may contain: no values from a query or a request. */
export function describeError(error: unknown, depth = 0): DescribedError {
  if (!isError(error)) return { type: typeof error };
  const { cause, errors } = error;
  const canDescend = depth < MAX_CAUSE_DEPTH;
  return present({
    type: error.name,
    code: error.code,
    message: quotesValues(error) ? undefined : error.message,
    constraint: error.constraint,
    table: error.table,
    column: error.column,
    stack: framesOf(error),
    cause: canDescend && isError(cause) ? describeError(cause, depth + 1) : undefined,
    errors:
      canDescend && Array.isArray(errors)
        ? errors.slice(0, MAX_ERRORS).map((inner) => describeError(inner, depth + 1))
        : undefined,
  });
}

const MAX_CAUSE_DEPTH = 3;
const MAX_ERRORS = 5;

type ErrorLike = Error &
  Partial<Record<'code' | 'errors' | 'constraint' | 'table' | 'column', unknown>>;

// Not `instanceof Error`: under Jest, Node's errors come from another realm.
function isError(value: unknown): value is ErrorLike {
  return typeof value === 'object' && value !== null && 'message' in value && 'name' in value;
}

/** Whether the message can contain values. */
function quotesValues(error: ErrorLike): boolean {
  // JSON.parse quotes its input.
  if (error.name === 'SyntaxError') return true;
  if (error instanceof ValidationError) return !quotesNoRow(error);
  return SQLSTATE.test(String(error.code)) && !SERVER_CLASSES.test(String(error.code));
}

/**
 * Some messages of MikroORM quote a row, such as "User not found ({ email: … })". Those about the
 * entities and about the wrong use of an entity manager do not.
 */
function quotesNoRow(error: ValidationError): boolean {
  return error instanceof MetadataError || WRONG_USE.includes(error.message);
}

const WRONG_USE = [
  ValidationError.cannotUseGlobalContext(),
  ValidationError.transactionRequired(),
].map(({ message }) => message);

// Some Node codes (EPIPE) also have five capital letters.
const SQLSTATE = /^(?=.*\d)[0-9A-Z]{5}$/;

/** SQLSTATE classes about connections, limits and locks. Their messages contain no row data. */
const SERVER_CLASSES = /^(08|25|28|3D|40|53|55|57|58)/;

/** The frames only. The stack begins with the message, and a message can look like a frame. */
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
