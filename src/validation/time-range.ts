import { invalidField } from './invalid-field.js';

export interface TimeRange {
  createdFrom: Date | undefined;
  createdTo: Date | undefined;
}

/** The times of a validated query. */
export function readTimes(query: { createdFrom?: string; createdTo?: string }): TimeRange {
  const createdFrom = query.createdFrom === undefined ? undefined : new Date(query.createdFrom);
  const createdTo = query.createdTo === undefined ? undefined : new Date(query.createdTo);
  if (createdFrom && createdTo && createdFrom > createdTo) {
    throw invalidField('createdFrom', 'createdFrom must not be after createdTo');
  }
  return { createdFrom, createdTo };
}
