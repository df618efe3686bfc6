import { applyDecorators } from '@nestjs/common';
import { Transform } from 'class-transformer';
import {
  ArrayMinSize,
  IsBoolean,
  IsIn,
  IsInt,
  Matches,
  Max,
  Min,
  ValidateBy,
} from 'class-validator';

/** A whole number between two bounds, written in plain digits. */
export function Whole(least: number, most: number): PropertyDecorator {
  const message = `must be a whole number from ${least} to ${most}`;
  return applyDecorators(
    Transform(({ value }: { value: unknown }) =>
      /^\d{1,12}$/.test(String(value)) ? Number(value) : value,
    ),
    IsInt({ message }),
    Min(least, { message }),
    Max(most, { message }),
  );
}

/** One of a few words. */
export function Choice(...words: string[]): PropertyDecorator {
  return IsIn(words, { message: `must be one of ${words.join(', ')}` });
}

/** `on` or `off`; `true` and `false` are understood too. */
export function Flag(): PropertyDecorator {
  const meanings: Record<string, boolean> = { on: true, true: true, off: false, false: false };
  return applyDecorators(
    Transform(({ value }: { value: unknown }) => meanings[String(value)] ?? value),
    IsBoolean({ message: 'must be on or off' }),
  );
}

/** A comma-separated list; the spaces around each entry do not count. */
export function List({ atLeastOne = false } = {}): PropertyDecorator {
  const split = Transform(({ value }: { value: unknown }) =>
    typeof value === 'string'
      ? value
          .split(',')
          .map((entry) => entry.trim())
          .filter((entry) => entry !== '')
      : value,
  );
  return atLeastOne
    ? applyDecorators(split, ArrayMinSize(1, { message: 'must name at least one' }))
    : split;
}

/** A text that says something and holds no control characters. */
export function Text(): PropertyDecorator {
  // oxlint-disable-next-line no-control-regex -- control characters are what this refuses
  return Matches(/^(?=.*\S)[^\x00-\x1f\x7f]{1,2048}$/, { message: 'must not be empty' });
}

export function HttpUrl(): PropertyDecorator {
  return Url(['http:', 'https:'], 'must be a URL that begins with http:// or https://');
}

export function PostgresUrl(): PropertyDecorator {
  return Url(
    ['postgres:', 'postgresql:'],
    'must be a URL such as postgresql://user:password@host:5432/database (special characters as %23)',
  );
}

function Url(protocols: string[], message: string): PropertyDecorator {
  const accepts = (value: unknown) =>
    typeof value === 'string' && protocols.includes(URL.parse(value)?.protocol ?? '');
  return ValidateBy({ name: 'url', validator: { validate: accepts } }, { message });
}
