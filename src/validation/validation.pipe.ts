import {
  type ArgumentMetadata,
  Injectable,
  type ValidationError,
  ValidationPipe,
} from '@nestjs/common';
import { currentRequest } from '../database/current-request.js';
import { type BodyRules, JSON_BODY } from '../http/body-rules.js';
import { type FieldError, problem } from '../problems/problem.js';

/** Converts bodies and queries to DTOs. Throws a problem with each invalid or unknown field. */
@Injectable()
export class RequestValidationPipe extends ValidationPipe {
  constructor() {
    super({
      transform: true,
      whitelist: true,
      forbidNonWhitelisted: true,
      exceptionFactory: (errors) => validationError(fieldErrors(errors).slice(0, MAX_ERRORS)),
    });
  }

  override async transform(value: unknown, metadata: ArgumentMetadata): Promise<unknown> {
    // The value of a custom parameter decorator is not input of the client.
    if (metadata.type === 'custom') return value;
    const rules = metadata.type === 'body' ? bodyRules() : JSON_BODY;
    if (rules.opaque) return value;
    // The time of class-transformer and `@ArrayUnique` is quadratic in the number of entries.
    const { maxEntries, maxDepth } = rules;
    if (countEntries(value, maxEntries) > maxEntries) {
      throw problem('VALIDATION_ERROR', {
        detail: `A request is limited to ${maxEntries} fields and array items in total.`,
      });
    }
    // `@Body('name')` and an argument of GraphQL can be a string or a number.
    const isScalar = metadata.data !== undefined && !isObject(value);
    const isWanted = isPlainBody(value, maxDepth, metadata.metatype === Array);
    if (metadata.type === 'body' && !isScalar && !isWanted) {
      throw problem('MALFORMED_REQUEST', {
        detail: `The body must be a JSON object with at most ${maxDepth} levels of nesting.`,
      });
    }
    // class-transformer omits these names, so that later validation could not reject them.
    const inherited = inheritedNames(value);
    if (inherited.length > 0) {
      throw validationError(
        inherited.map((field) => ({ field, message: `property ${field} should not exist` })),
      );
    }
    return (await super.transform(value, metadata)) as unknown;
  }
}

function validationError(errors: FieldError[]) {
  return problem('VALIDATION_ERROR', { errors });
}

/** Flattens the errors of class-validator to paths such as `address.city` and `roles.0`. */
function fieldErrors(errors: ValidationError[], prefix = ''): FieldError[] {
  return errors.flatMap((error) => {
    const field = `${prefix}${error.property}`;
    const direct = Object.values(error.constraints ?? {}).map((message) => ({ field, message }));
    return [...direct, ...fieldErrors(error.children ?? [], `${field}.`)];
  });
}

/** Counts the fields and array items of a value at all depths. Stops counting above `max`. */
function countEntries(value: unknown, max: number): number {
  const pending = [value];
  let count = 0;
  while (pending.length > 0 && count <= max) {
    const next = pending.pop();
    if (!isObject(next)) continue;
    const inner: unknown[] = Object.values(next);
    count += inner.length;
    // Not spread: a route can allow more items than a call can have arguments.
    if (count <= max) for (const item of inner) pending.push(item);
  }
  return count;
}

export const MAX_ERRORS = 50;

/** The rules of the body of this request. */
function bodyRules(): BodyRules {
  return currentRequest.getStore()?.bodyRules ?? JSON_BODY;
}

/** class-transformer recurses without a limit, and treats an array as several bodies. */
function isPlainBody(value: unknown, maxDepth: number, isArrayWanted: boolean): boolean {
  if (value === undefined) return true;
  if (!isObject(value) || (Array.isArray(value) && !isArrayWanted)) return false;
  return !isDeeper(value, maxDepth);
}

function isDeeper(value: unknown, levels: number): boolean {
  if (!isObject(value)) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1));
}

/** The names at all depths that every object inherits, as paths. */
function inheritedNames(value: unknown, prefix = ''): string[] {
  if (!isObject(value)) return [];
  return Object.entries(value).flatMap(([name, inner]) => [
    ...(isInherited(name) ? [`${prefix}${name}`] : []),
    ...inheritedNames(inner, `${prefix}${name}.`),
  ]);
}

/** Whether every object inherits the name, such as `__proto__`, `constructor` or `toString`. */
function isInherited(name: string): boolean {
  return name in Object.prototype;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
