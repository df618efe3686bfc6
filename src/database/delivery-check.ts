import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { CHANNEL } from './change-triggers.js';
import { CONNECT_TIMEOUT_MS, withConnection } from './connection.js';

/**
 * Sends a notification through a new connection to `url` and waits until `listener` receives it.
 *
 * `DATABASE_URL` and `DATABASE_DIRECT_URL` can name different databases. An address can also move
 * to another server while the listener stays connected to the old one: hence the new connection.
 */
export async function verifyDelivery(listener: Client, url: string): Promise<void> {
  const message = `here ${randomUUID()}`;
  const { promise: received, resolve } = Promise.withResolvers<true>();
  const onNotification = ({ payload }: { payload?: string | undefined }) => {
    if (payload === message) resolve(true);
  };
  listener.on('notification', onNotification);
  try {
    await withConnection(
      url,
      async (sender) => {
        const { rows } = await sender.query<WriteState>(
          `select ${READ_ONLY} as "isReadOnly", pg_notify($1, $2)`,
          [CHANNEL, message],
        );
        requireWritable(rows[0]);
      },
      { connectionTimeoutMillis: CONNECT_TIMEOUT_MS, query_timeout: REPLY_TIMEOUT_MS },
    );
    if (!(await Promise.race([received, sleep(REPLY_TIMEOUT_MS, false, { ref: false })]))) {
      throw new Error(
        'DATABASE_DIRECT_URL does not receive the notifications that DATABASE_URL sends',
      );
    }
  } finally {
    listener.off('notification', onNotification);
  }
}

/** A standby is read-only as well. */
export const READ_ONLY = `current_setting('transaction_read_only')::boolean`;

export interface WriteState {
  isReadOnly: boolean;
}

export function requireWritable(state: WriteState | undefined): void {
  if (state?.isReadOnly !== false) throw new Error('the database is read-only or a standby');
}

export const REPLY_TIMEOUT_MS = 1000;
