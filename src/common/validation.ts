import {
  type ArgumentMetadata,
  Injectable,
  type ValidationError,
  ValidationPipe,
} from '@nestjs/common';
import { type FieldError, problem } from './problem.js';

/** Bodies and queries become DTOs, or a problem that names each field. Unknown fields are refused. */
@Injectable()
export class RequestPipe extends ValidationPipe {
  constructor() {
    super({
      transform: true,
      whitelist: true,
      forbidNonWhitelisted: true,
      exceptionFactory: (errors) => refused(fieldErrors(errors)),
    });
  }

  override async transform(value: unknown, metadata: ArgumentMetadata): Promise<unknown> {
    // class-transformer leaves this name out, so that nothing later could refuse it.
    if (metadata.type !== 'custom' && isObject(value) && Object.hasOwn(value, '__proto__')) {
      throw refused([{ field: '__proto__', message: 'property __proto__ should not exist' }]);
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

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
