import { problem } from '../problems/problem.js';

/** The problem of one field, for a rule that no decorator can check. */
export function invalidField(field: string, message: string) {
  return problem('VALIDATION_ERROR', { errors: [{ field, message }] });
}
