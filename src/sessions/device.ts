import { ApiProperty } from '@nestjs/swagger';
import bowser from 'bowser';
import { LRUCache } from 'lru-cache';

// The package is CommonJS, so its functions are properties of the default export.
const { parse } = bowser;

/** The device of a session, so that users can recognise it. */
export class DeviceRead {
  @ApiProperty({ type: String, nullable: true, example: 'Firefox 145' })
  browser: string | null;

  @ApiProperty({ type: String, nullable: true, example: 'macOS' })
  system: string | null;

  @ApiProperty({ enum: ['desktop', 'mobile', 'tablet', 'tv', 'bot', 'unknown'] })
  kind: string;
}

/** Parsing a user agent is the slowest step of a session list, and many sessions share one. */
const cache = new LRUCache<string, DeviceRead>({ max: 1000 });

export function deviceOf(userAgent: string | null): DeviceRead {
  if (!userAgent) return { browser: null, system: null, kind: 'unknown' };
  // Anyone can send a long user agent. This bounds the work of the patterns and the cache.
  const bounded = userAgent.slice(0, 512);
  const device = cache.get(bounded) ?? parseDevice(bounded);
  cache.set(bounded, device);
  return device;
}

function parseDevice(userAgent: string): DeviceRead {
  const { browser, os, platform } = parse(userAgent);
  const major = browser.version?.split('.', 1)[0];
  return {
    browser: browser.name ? [browser.name, major].filter(Boolean).join(' ') : null,
    system: os.name ?? null,
    kind: KINDS.has(platform.type ?? '') ? (platform.type ?? 'unknown') : 'unknown',
  };
}

const KINDS = new Set(['desktop', 'mobile', 'tablet', 'tv', 'bot']);
