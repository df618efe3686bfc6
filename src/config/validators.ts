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

/** A whole number between two bounds, in decimal digits only. */
export function Whole(min: number, max: number): PropertyDecorator {
  const message = `must be a whole number from ${min} to ${max}`;
  return applyDecorators(
    Transform(({ value }: { value: unknown }) =>
      /^\d{1,12}$/.test(String(value)) ? Number(value) : value,
    ),
    IsInt({ message }),
    Min(min, { message }),
    Max(max, { message }),
  );
}

/** One of a few words. */
export function Choice(...words: string[]): PropertyDecorator {
  return IsIn(words, { message: `must be one of ${words.join(', ')}` });
}

/** `on` or `off`. `true` and `false` are accepted too. */
export function Flag(): PropertyDecorator {
  const meanings: Record<string, boolean> = { on: true, true: true, off: false, false: false };
  return applyDecorators(
    Transform(({ value }: { value: unknown }) => meanings[String(value)] ?? value),
    IsBoolean({ message: 'must be on or off' }),
  );
}

/** A comma-separated list. Spaces around an entry are ignored. */
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

/** A text that is not blank and has no control characters. */
export function Text(): PropertyDecorator {
  // oxlint-disable-next-line no-control-regex -- the rule rejects control characters
  return Matches(/^(?=.*\S)[^\x00-\x1f\x7f]{1,2048}$/, { message: 'must not be empty' });
}

export function HttpUrl(): PropertyDecorator {
  const message = 'must be a URL that begins with http:// or https://, without user and password';
  return Url(['http:', 'https:'], message, ({ username, password }) => username + password === '');
}

export function PostgresUrl(): PropertyDecorator {
  return Url(
    ['postgres:', 'postgresql:'],
    'must be a URL such as postgresql://user:password@host:5432/database (special characters as %23)',
  );
}

function Url(
  protocols: string[],
  message: string,
  isAllowed: (url: URL) => boolean = () => true,
): PropertyDecorator {
  const accepts = (value: unknown) => {
    const url = typeof value === 'string' ? URL.parse(value) : null;
    return url !== null && protocols.includes(url.protocol) && isAllowed(url);
  };
  return ValidateBy({ name: 'url', validator: { validate: accepts } }, { message });
}

/** A list of origins as browsers send them: scheme, host and port, without a path or `*`. */
export function Origins(): PropertyDecorator {
  return applyDecorators(
    List(),
    ValidateBy(
      { name: 'origins', validator: { validate: (value) => isOrigin(value) } },
      {
        each: true,
        message: 'must list origins such as https://app.example.com, without a path or *',
      },
    ),
  );
}

function isOrigin(value: unknown): boolean {
  // The URL parser accepts `*` in a host name. Origins are compared as they are, so none matches.
  return !String(value).includes('*') && URL.parse(String(value))?.origin === value;
}

/** Express's `trust proxy`, except values that would trust every address. */
export function TrustedProxies(): PropertyDecorator {
  return ValidateBy(
    { name: 'proxies', validator: { validate: (value) => proxiesIn(String(value)) !== undefined } },
    {
      message:
        'must be false, a number of hops or a list of addresses; if all addresses are trusted, clients can forge theirs',
    },
  );
}

/** Returns undefined for an invalid value, or if the networks cover the whole internet. */
export function proxiesIn(text: string): false | number | string[] | undefined {
  if (text === 'false') return false;
  if (/^\d{1,2}$/.test(text)) return Number(text);
  const proxies = text.split(',').map((proxy) => proxy.trim());
  const networks = proxies.flatMap((proxy) => NAMED_NETWORKS[proxy] ?? proxy).map(prefixOf);
  if (!networks.every((network) => network !== undefined)) return undefined;
  return PUBLIC_INTERNET.some((space) => covers(networks, space)) ? undefined : proxies;
}

/** The network names that Express accepts, as proxy-addr defines them. */
const NAMED_NETWORKS: Record<string, string[]> = {
  loopback: ['127.0.0.1/8', '::1/128'],
  linklocal: ['169.254.0.0/16', 'fe80::/10'],
  uniquelocal: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'],
};

/** The common prefix of a network, in bits. IPv4 is the part `::ffff:0:0/96` of IPv6. */
function prefixOf(network: string): string | undefined {
  const [address = '', length, ...more] = network.split('/');
  const version = isIP(address);
  if (version === 0 || address.includes('%') || more.length > 0) return undefined;
  const bits = version === 4 ? 32 : 128;
  if (length === undefined) return bitsOf(address);
  if (!/^[1-9]\d{0,2}$/.test(length) || Number(length) > bits) return undefined;
  return bitsOf(address).slice(0, 128 - bits + Number(length));
}

function bitsOf(address: string): string {
  const ipv6 = address.includes(':') ? address : `::ffff:${address}`;
  // The URL parser also turns a dotted IPv4 part into two groups.
  const [head = '', tail] = new URL(`http://[${ipv6}]`).hostname.slice(1, -1).split('::');
  const groups = [head, tail ?? ''].map((part) => part.split(':').filter(Boolean));
  const zeros = Array<string>(8 - groups.flat().length).fill('0');
  return [...(groups[0] ?? []), ...zeros, ...(groups[1] ?? [])]
    .map((group) => parseInt(group, 16).toString(2).padStart(16, '0'))
    .join('');
}

/** All IPv4 addresses, and the routed IPv6 addresses: `2000::/3`. */
const PUBLIC_INTERNET = ['0'.repeat(80) + '1'.repeat(16), '001'];

/** Whether the networks together contain every address with this prefix. */
function covers(networks: string[], prefix: string): boolean {
  if (networks.some((network) => prefix.startsWith(network))) return true;
  const inside = networks.filter((network) => network.startsWith(prefix));
  return inside.length > 0 && covers(inside, `${prefix}0`) && covers(inside, `${prefix}1`);
}
