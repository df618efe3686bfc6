import { isISO8601, ValidateBy } from 'class-validator';

/** An ISO 8601 time that JavaScript can parse. It cannot parse week dates and ordinal dates. */
export function PointInTime(): PropertyDecorator {
  return ValidateBy({
    name: 'pointInTime',
    validator: {
      validate: (value: unknown) =>
        typeof value === 'string' &&
        value.length <= 40 &&
        isISO8601(value, { strict: true, strictSeparator: true }) &&
        !Number.isNaN(Date.parse(value)),
      defaultMessage: () => '$property must be a time such as 2026-01-01T00:00:00Z',
    },
  });
}
