import { isIP, isIPv6 } from 'node:net';
import { ValidateBy } from 'class-validator';

/** An IP address, or a network such as `203.0.113.0/24`. */
export function IpRange(): PropertyDecorator {
  return ValidateBy({
    name: 'ipRange',
    validator: {
      validate: (value: unknown) => typeof value === 'string' && readIpRange(value) !== null,
      defaultMessage: () =>
        '$property must be an IP address such as 203.0.113.7, or a network such as 203.0.113.0/24',
    },
  });
}

/**
 * Returns the text for `inet`, or null if it is neither an address nor a network. An IPv4 range
 * that is written as IPv6 (`::ffff:203.0.113.0/120`) becomes IPv4, as stored addresses do.
 */
export function readIpRange(text: string): string | null {
  const [address = '', length, ...rest] = text.split('/');
  const family = address.includes('%') ? 0 : isIP(address);
  if (family === 0 || rest.length > 0) return null;
  const bits = family === 4 ? 32 : 128;
  if (length !== undefined && !/^(0|[1-9]\d{0,2})$/.test(length)) return null;
  const prefix = length === undefined ? bits : Number(length);
  if (prefix > bits) return null;
  const mapped = prefix >= 96 ? mappedIPv4(address) : null;
  return mapped === null ? `${address}/${prefix}` : `${mapped}/${prefix - 96}`;
}

/** The text for `inet` of a validated value. */
export function requireIpRange(text: string): string {
  const range = readIpRange(text);
  if (range === null) throw new Error(`@IpRange() does not accept ${text}.`);
  return range;
}

function mappedIPv4(address: string): string | null {
  if (!isIPv6(address)) return null;
  // `URL` writes the address in its shortest form: `[::ffff:cb00:7107]`.
  const { hostname } = new URL(`http://[${address}]`);
  const [, high, low] = /^\[::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})\]$/.exec(hostname) ?? [];
  if (high === undefined || low === undefined) return null;
  const [upper, lower] = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
  return [upper >> 8, upper & 255, lower >> 8, lower & 255].join('.');
}
