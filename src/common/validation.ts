import type { ValidationError } from '@nestjs/common';
import type { FieldError } from './problem.js';

/** What class-validator found, flat and by name: `address.city`, `roles.0`. */
export function fieldErrors(errors: ValidationError[], prefix = ''): FieldError[] {
  return errors.flatMap((error) => {
    const field = `${prefix}${error.property}`;
    const own = Object.values(error.constraints ?? {}).map((message) => ({ field, message }));
    return [...own, ...fieldErrors(error.children ?? [], `${field}.`)];
  });
}
