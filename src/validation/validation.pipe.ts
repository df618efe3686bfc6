import {
  type ArgumentMetadata,
  Injectable,
  type ValidationError,
  ValidationPipe,
} from '@nestjs/common';
import { type FieldError, problem } from '../problems/problem.js';

/** Bodies and queries become DTOs, or a problem that names each field. Unknown fields are refused. */
@Injectable()
export class RequestValidationPipe extends ValidationPipe {
  constructor() {
    super({
      transform: true,
      whitelist: true,
      forbidNonWhitelisted: true,
      exceptionFactory: (errors) => refused(fieldErrors(errors).slice(0, MAX_ERRORS)),
    });
  }

  override async transform(value: unknown, metadata: ArgumentMetadata): Promise<unknown> {
    // What a decorator of somebody's made is nobody's input.
    if (metadata.type === 'custom') return value;
    // class-transformer and `@ArrayUnique` take time that grows with the square of these.
    if (sizeOf(value, MAX_ENTRIES) > MAX_ENTRIES) {
      throw problem('VALIDATION_ERROR', {
        detail: `A request may have ${MAX_ENTRIES} fields and list entries in all.`,
      });
    }
    // class-transformer leaves these names out, so that nothing later could refuse them.
    const inherited = isObject(value) ? Object.keys(value).filter(isInherited) : [];
    if (inherited.length > 0) {
      throw refused(
        inherited.map((field) => ({ field, message: `property ${field} should not exist` })),
      );
    }
    if (metadata.type === 'body' && !isPlainBody(value)) {
      throw problem('MALFORMED_REQUEST', {
        detail: 'The body must be a JSON object that is not deep.',
      });
    }
    return (await super.transform(value, metadata)) as unknown;
  }
}

function refused(errors: FieldError[]) {
  return problem('VALIDATION_ERROR', { errors });
}

/** What class-validator found, flat and by name: `address.city`, `roles.0`. */
function fieldErrors(errors: ValidationError[], prefix = ''): FieldError[] {
  return errors.flatMap((error) => {
    const field = `${prefix}${error.property}`;
    const own = Object.values(error.constraints ?? {}).map((message) => ({ field, message }));
    return [...own, ...fieldErrors(error.children ?? [], `${field}.`)];
  });
}

/** How many fields and list entries a value has at all depths. Stops counting above `most`. */
function sizeOf(value: unknown, most: number): number {
  const open = [value];
  let size = 0;
  while (open.length > 0 && size <= most) {
    const next = open.pop();
    if (!isObject(next)) continue;
    const inner: unknown[] = Object.values(next);
    size += inner.length;
    if (size <= most) open.push(...inner);
  }
  return size;
}

export const MAX_ERRORS = 50;
const MAX_ENTRIES = 50;
const MAX_DEPTH = 5;

/** class-transformer walks whatever it is given, however deep, and an array as many bodies. */
function isPlainBody(value: unknown): boolean {
  if (value === undefined) return true;
  return isObject(value) && !Array.isArray(value) && !isDeeper(value, MAX_DEPTH);
}

function isDeeper(value: unknown, levels: number): boolean {
  if (!isObject(value)) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1));
}

/** `__proto__`, `constructor`, `toString` and their like, which any object seems to have. */
function isInherited(name: string): boolean {
  return name in Object.prototype;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
