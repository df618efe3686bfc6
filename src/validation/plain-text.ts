import { applyDecorators } from '@nestjs/common';
import { IsString, Length, Matches } from 'class-validator';

/** A text of so many characters. PostgreSQL stores no NUL, and nobody types one. */
export function PlainText(least: number, most: number): PropertyDecorator {
  return applyDecorators(
    IsString(),
    Length(least, most),
    // oxlint-disable-next-line no-control-regex -- NUL is what this refuses
    Matches(/^[^\0\p{Cs}]*$/u, { message: '$property must not contain NUL or half a character' }),
  );
}

/** The same on one line: a name is shown in lists and logs. */
export function OneLine(least: number, most: number): PropertyDecorator {
  return applyDecorators(
    PlainText(least, most),
    Matches(/^\P{Cc}*$/u, { message: '$property must not contain control characters' }),
  );
}
