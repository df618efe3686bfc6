import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { HttpClient } from './http-client.ts';
import { count, newTally } from './load.ts';

type Field = 'name' | 'role' | 'ban';

interface Entry {
  requestId: string;
  subject: string;
  field: Field;
  /** The new value. Null lifts the ban. */
  value: string | null;
  status: number;
}

export interface LedgerResult {
  acknowledged: number;
  /** Acknowledged writes that are missing in the audit log or in the row. */
  lost: string[];
  /** Writes that the audit log contains more than once. */
  doubled: string[];
  /** Committed writes without acknowledgement, because the connection broke after the commit. */
  unconfirmed: number;
}

export type Query = <Row extends object>(sql: string, values?: unknown[]) => Promise<Row[]>;

export interface LedgerOptions {
  /** The changed users. Each has one write at a time. */
  subjects: string[];
  admin: () => string;
  /** Where the next write goes. */
  url: (turn: number) => string;
  pauseMs: number;
}

/**
 * Sends writes and keeps a list of them. Each write changes something, because no name, role or ban
 * repeats. Each has its own request id, so the audit log must contain an acknowledged write once.
 */
export class Ledger {
  tally = newTally();
  private readonly entries: Entry[] = [];
  private readonly client = new HttpClient();
  private readonly workers: Promise<void>[];
  private readonly options: LedgerOptions;
  private stopped = false;

  constructor(options: LedgerOptions) {
    this.options = options;
    this.workers = options.subjects.map((subject, number) => this.writeTo(subject, number));
  }

  takeTally() {
    const { tally } = this;
    this.tally = newTally();
    return tally;
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.workers);
    this.client.close();
  }

  private async writeTo(subject: string, number: number): Promise<void> {
    let banned = false;
    for (let turn = 0; !this.stopped; turn += 1) {
      const field = FIELDS[turn % FIELDS.length] ?? 'name';
      const path = `/api/v1/users/${subject}`;
      const marker = randomUUID();
      if (field === 'name') {
        await this.write(turn + number, subject, field, marker, 'PATCH', path, { name: marker });
      } else if (field === 'role') {
        const role = otherRoles();
        const value = role.join(',');
        await this.write(turn + number, subject, field, value, 'PUT', `${path}/role`, { role });
      } else if (banned) {
        // Only an acknowledged ban can be lifted with certainty.
        await this.write(turn + number, subject, field, null, 'DELETE', `${path}/ban`);
        banned = false;
      } else {
        const body = { reason: marker };
        const entry = await this.write(turn, subject, field, marker, 'POST', `${path}/ban`, body);
        banned = entry.status === 200;
      }
      await sleep(this.options.pauseMs);
    }
  }

  private async write(
    turn: number,
    subject: string,
    field: Field,
    value: string | null,
    method: string,
    path: string,
    body?: object,
  ): Promise<Entry> {
    const requestId = randomUUID();
    const answer = await this.client.send(this.options.url(turn) + path, {
      method,
      token: this.options.admin(),
      headers: { 'x-request-id': requestId },
      ...(body === undefined ? {} : { body }),
    });
    count(this.tally, answer);
    const entry = { requestId, subject, field, value, status: answer.status };
    this.entries.push(entry);
    return entry;
  }

  /** Compares the acknowledged writes with the audit log and the rows. */
  async verify(query: Query): Promise<LedgerResult> {
    const recorded = new Map(
      (
        await query<{ client_request_id: string; events: string }>(
          'select client_request_id, count(*) as events from gatehouse.audit_event where client_request_id = any($1) group by 1',
          [this.entries.map(({ requestId }) => requestId)],
        )
      ).map(({ client_request_id, events }) => [client_request_id, Number(events)]),
    );
    const acknowledged = this.entries.filter(({ status }) => status === 200);
    const eventsOf = ({ requestId }: Entry) => recorded.get(requestId) ?? 0;
    return {
      acknowledged: acknowledged.length,
      lost: [
        ...acknowledged.filter((entry) => eventsOf(entry) === 0).map(describeEntry),
        ...(await this.missingInRows(query)),
      ],
      doubled: this.entries.filter((entry) => eventsOf(entry) > 1).map(describeEntry),
      unconfirmed: this.entries.filter((entry) => entry.status !== 200 && eventsOf(entry) > 0)
        .length,
    };
  }

  /** The row must contain the last acknowledged value or a later unacknowledged one. */
  private async missingInRows(query: Query): Promise<string[]> {
    const rows = await query<{ id: string; name: string; role: string; banReason: string | null }>(
      'select id, name, role, "banReason" from "user" where id = any($1)',
      [this.options.subjects],
    );
    return rows.flatMap(({ id, name, role, banReason }) => {
      const stored = { name, role, ban: banReason };
      return FIELD_NAMES.flatMap((field) => {
        const written = this.entries.filter(
          (entry) => entry.subject === id && entry.field === field,
        );
        const last = written.findLastIndex(({ status }) => status === 200);
        const possible = written.slice(Math.max(last, 0)).map(({ value }) => value);
        if (last === -1 || possible.includes(stored[field])) return [];
        return [`${field} of ${id} is ${stored[field]} and not ${possible[0]}`];
      });
    });
  }
}

const FIELD_NAMES: Field[] = ['name', 'role', 'ban'];
const FIELDS: Field[] = ['name', 'ban', 'role', 'name', 'ban'];

/** The additional `ROLES` of the service. */
export const LEDGER_ROLES = Array.from({ length: 12 }, (_, bit) => `r${bit}`);

let roleSetCount = 0;

/** Returns a different set of roles each time. All ledgers change the same users. */
function otherRoles(): string[] {
  roleSetCount += 1;
  return ['user', ...LEDGER_ROLES.filter((_, bit) => (roleSetCount >> bit) & 1)];
}

function describeEntry({ requestId, subject, field, value, status }: Entry): string {
  return `${field} of ${subject} to ${value}, answered ${status}, request ${requestId}`;
}
