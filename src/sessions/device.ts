import { ApiProperty } from '@nestjs/swagger';
import bowser from 'bowser';
import { LRUCache } from 'lru-cache';

// A CommonJS package: its parts come with the default export.
const { parse } = bowser;

/** What a person recognises a session by. */
export class DeviceRead {
  @ApiProperty({ type: String, nullable: true, example: 'Firefox 145' })
  browser: string | null;

  @ApiProperty({ type: String, nullable: true, example: 'macOS' })
  system: string | null;

  @ApiProperty({ enum: ['desktop', 'mobile', 'tablet', 'tv', 'bot', 'unknown'] })
  kind: string;
}

/** There are few kinds of devices, and naming one takes longer than all else about a session. */
const known = new LRUCache<string, DeviceRead>({ max: 1000 });

export function deviceOf(userAgent: string | null): DeviceRead {
  if (!userAgent) return { browser: null, system: null, kind: 'unknown' };
  // The patterns run on what strangers send, and what they send is kept.
  const read = userAgent.slice(0, 512);
  const device = known.get(read) ?? parseDevice(read);
  known.set(read, device);
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
