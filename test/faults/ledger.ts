import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { HttpClient } from './http-client.ts';
import { count, newTally } from './load.ts';

type Field = 'name' | 'role' | 'ban';

interface Entry {
  requestId: string;
  subject: string;
  field: Field;
  /** What it was to become; null is the lifted ban. */
  value: string | null;
  status: number;
}

export interface Books {
  acknowledged: number;
  /** Acknowledged, and not on record or not in the row. */
  lost: string[];
  /** On record more than once. */
  doubled: string[];
  /** Not acknowledged, and done all the same: an answer can break between a commit and its receipt. */
  unconfirmed: number;
}

export type Query = <Row extends object>(sql: string, values?: unknown[]) => Promise<Row[]>;

export interface LedgerOptions {
  /** Whom the changes are made to: one after another for each of them. */
  subjects: string[];
  admin: () => string;
  /** Where the next write goes. */
  url: (turn: number) => string;
  pauseMs: number;
}

/**
 * Writes that are remembered: each changes something for certain (no name, role or ban is given twice),
 * carries a request id of its own, and so must be on record exactly once when it was acknowledged.
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

  look() {
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
      const mark = randomUUID();
      if (field === 'name') {
        await this.write(turn + number, subject, field, mark, 'PATCH', path, { name: mark });
      } else if (field === 'role') {
        const role = otherRoles();
        const value = role.join(',');
        await this.write(turn + number, subject, field, value, 'PUT', `${path}/role`, { role });
      } else if (banned) {
        // Only what is banned for certain can be unbanned for certain.
        await this.write(turn + number, subject, field, null, 'DELETE', `${path}/ban`);
        banned = false;
      } else {
        const body = { reason: mark };
        const entry = await this.write(turn, subject, field, mark, 'POST', `${path}/ban`, body);
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
    const answer = await this.client.ask(this.options.url(turn) + path, {
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

  /** What was promised against what is there. */
  async settle(query: Query): Promise<Books> {
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
        ...acknowledged.filter((entry) => eventsOf(entry) === 0).map(told),
        ...(await this.missingInRows(query)),
      ],
      doubled: this.entries.filter((entry) => eventsOf(entry) > 1).map(told),
      unconfirmed: this.entries.filter((entry) => entry.status !== 200 && eventsOf(entry) > 0)
        .length,
    };
  }

  /** The row must hold what was acknowledged last, or what was asked for, in vain or not, after it. */
  private async missingInRows(query: Query): Promise<string[]> {
    const rows = await query<{ id: string; name: string; role: string; banReason: string | null }>(
      'select id, name, role, "banReason" from "user" where id = any($1)',
      [this.options.subjects],
    );
    return rows.flatMap(({ id, name, role, banReason }) => {
      const held = { name, role, ban: banReason };
      return FIELD_NAMES.flatMap((field) => {
        const written = this.entries.filter((each) => each.subject === id && each.field === field);
        const last = written.findLastIndex(({ status }) => status === 200);
        const possible = written.slice(Math.max(last, 0)).map(({ value }) => value);
        if (last === -1 || possible.includes(held[field])) return [];
        return [`${field} of ${id} is ${held[field]} and not ${possible[0]}`];
      });
    });
  }
}

const FIELD_NAMES: Field[] = ['name', 'role', 'ban'];
const FIELDS: Field[] = ['name', 'ban', 'role', 'name', 'ban'];

/** What the service must know as `ROLES`, beside the two that it always has. */
export const LEDGER_ROLES = Array.from({ length: 12 }, (_, bit) => `r${bit}`);

let given = 0;

/** Another set of roles each time, in all ledgers together: their subjects are the same users. */
function otherRoles(): string[] {
  given += 1;
  return ['user', ...LEDGER_ROLES.filter((_, bit) => (given >> bit) & 1)];
}

function told({ requestId, subject, field, value, status }: Entry): string {
  return `${field} of ${subject} to ${value}, answered ${status}, request ${requestId}`;
}
