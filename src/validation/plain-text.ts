import { applyDecorators } from '@nestjs/common';
import { IsString, Length, Matches } from 'class-validator';

/** A string with a length in this range and without NUL, which PostgreSQL cannot store. */
export function PlainText(minLength: number, maxLength: number): PropertyDecorator {
  return applyDecorators(
    IsString(),
    Length(minLength, maxLength),
    // oxlint-disable-next-line no-control-regex -- the expression rejects NUL
    Matches(/^[^\0\p{Cs}]*$/u, {
      message: '$property must not contain NUL or an unpaired surrogate',
    }),
  );
}

/** A `PlainText` without control characters, for names that lists and logs show. */
export function OneLine(minLength: number, maxLength: number): PropertyDecorator {
  return applyDecorators(
    PlainText(minLength, maxLength),
    Matches(/^\P{Cc}*$/u, { message: '$property must not contain control characters' }),
  );
}
