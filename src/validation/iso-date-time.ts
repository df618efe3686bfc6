import { isISO8601, ValidateBy } from 'class-validator';

/** A time in ISO 8601, of which JavaScript cannot read all: there are weeks and days of the year in it. */
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
