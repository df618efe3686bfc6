import { isIP } from 'node:net';
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

/** `https://app.example.com` as a browser sends it: scheme, host and port, and nothing behind them. */
export function Origins(): PropertyDecorator {
  return applyDecorators(
    List(),
    ValidateBy(
      { name: 'origins', validator: { validate: (value) => isOrigin(value) } },
      { each: true, message: 'must list origins such as https://app.example.com, without a path' },
    ),
  );
}

function isOrigin(value: unknown): boolean {
  return URL.parse(String(value))?.origin === value;
}

/** What Express calls `trust proxy`, but for what would trust everyone. */
export function TrustedProxies(): PropertyDecorator {
  return ValidateBy(
    { name: 'proxies', validator: { validate: (value) => proxiesIn(String(value)) !== undefined } },
    {
      message:
        'must be false, a number of hops or a list of addresses; trusting everyone lets anyone choose their address',
    },
  );
}

export function proxiesIn(text: string): false | number | string[] | undefined {
  if (text === 'false') return false;
  if (/^\d{1,2}$/.test(text)) return Number(text);
  const proxies = text.split(',').map((proxy) => proxy.trim());
  return proxies.every(isNetwork) ? proxies : undefined;
}

function isNetwork(text: string): boolean {
  if (/^(loopback|linklocal|uniquelocal)$/.test(text)) return true;
  const [address = '', prefix, ...more] = text.split('/');
  const bits = { 0: 0, 4: 32, 6: 128 }[isIP(address)] ?? 0;
  if (prefix === undefined) return bits > 0;
  return more.length === 0 && /^[1-9]\d{0,2}$/.test(prefix) && Number(prefix) <= bits;
}
