import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import type { OpenAPIObject } from '@nestjs/swagger';
import { createDocument } from '../../src/openapi/document.js';
import { encodeCursor } from '../../src/validation/cursor.js';
import { PROBLEMS } from '../../src/problems/problem.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import {
  type TestResponse,
  type OpenApiCheck,
  createOpenApiCheck,
} from '../support/openapi-check.js';
import { type Stack, startStack } from '../support/stack.js';

/**
 * Generates inputs for every operation from the OpenAPI document. Half of them are valid, and half
 * are wrong in one place. `PROPERTY_SEED` repeats a failed run.
 */
const RUNS = 200;
const SEED = Number(process.env['PROPERTY_SEED'] ?? 20_261_121);

type Schema = Record<string, any>; // oxlint-disable-line typescript/no-explicit-any -- JSON Schema is anything

interface Operation {
  method: string;
  template: string;
  parameters: { name: string; in: string; required?: boolean; schema: Schema }[];
  body: Schema | undefined;
  isPublic: boolean;
}

interface Input {
  path: Record<string, string>;
  query: [string, string][];
  headers: Record<string, string>;
  body: unknown;
  /** Replaces `body` where the test sends text that is not JSON of a valid body. */
  raw?: { text: string; type: string };
}

let stack: Stack;
let check: OpenApiCheck;
let document: OpenAPIObject;
let admin: TestUser;
let targets: TestUser[];

beforeAll(async () => {
  stack = await startStack({}, { RATE_LIMIT_PER_MINUTE: '0' });
  document = createDocument(stack.gatehouse.app);
  check = createOpenApiCheck(document);
  admin = await signUp(stack.authWithSid);
  targets = [await signUp(stack.auth), await signUp(stack.auth)];
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
});

beforeEach(async () => {
  await stack.database.sql(
    `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
     select 'made' || n, 'made' || n || $1, $1, now() + interval '1 day', now(), now() from generate_series(1, 500) n
     on conflict do nothing`,
    [targets[0]?.id],
  );
});
afterAll(() => stack.end());

// ── Valid inputs ───────────────────────────────────────────────────────────────────────────────

/** Jest needs the operations before the application starts. A test compares both documents. */
const committed = JSON.parse(readFileSync('openapi.json', 'utf8')) as Schema;

const OPERATIONS: Operation[] = Object.entries(
  committed['paths'] as Record<string, Schema>,
).flatMap(([template, operations]) =>
  Object.entries(operations).map(([method, operation]: [string, Schema]) => ({
    method: method.toUpperCase(),
    template,
    parameters: operation['parameters'] ?? [],
    body: operation['requestBody']?.content['application/json'].schema,
    isPublic: operation['security'].length === 0,
  })),
);

const text = (min: number, max: number) =>
  fc
    .string({ unit: 'grapheme', minLength: Math.max(1, min), maxLength: Math.min(max, 40) })
    .filter((value) => value.trim() !== '' && value.length <= max && !/\p{Cc}/u.test(value));

const dateTime = fc
  .date({ min: new Date('2030-01-01'), max: new Date('2090-01-01'), noInvalidDate: true })
  .map((date) => date.toISOString());

function valueOf(given: Schema): fc.Arbitrary<unknown> {
  const schema = resolve(given);
  if (schema['enum']) return fc.constantFrom(...(schema['enum'] as unknown[]));
  if (schema['oneOf']) return fc.oneof(...(schema['oneOf'] as Schema[]).map(valueOf));
  const types = [schema['type']].flat() as string[];
  if (types.includes('null')) {
    const type = types.find((candidate) => candidate !== 'null');
    return fc.option(valueOf({ ...schema, type }), { nil: null });
  }
  if (types.includes('boolean')) return fc.boolean();
  if (types.includes('integer'))
    return fc.integer({ min: schema['minimum'], max: Math.min(schema['maximum'], 1000) });
  if (types.includes('array')) {
    const { minItems: minLength = 0, maxItems = 3 } = schema;
    return fc.uniqueArray(valueOf(schema['items']), {
      minLength,
      maxLength: Math.min(maxItems, 3),
    });
  }
  if (types.includes('object')) return objectOf(schema);
  if (schema['format'] === 'date-time') return dateTime;
  return text(schema['minLength'] ?? 1, schema['maxLength'] ?? 40);
}

function objectOf({ properties = {}, required = [] }: Schema): fc.Arbitrary<object> {
  const values = Object.fromEntries(
    Object.entries(properties as Schema).map(([name, schema]) => [
      name,
      SPECIAL_VALUES[name] ?? valueOf(schema as Schema),
    ]),
  );
  return fc.record(values, { requiredKeys: required as string[] });
}

function resolve(schema: Schema): Schema {
  // A description beside a reference makes Swagger wrap the reference.
  const [reference = schema] = (schema['allOf'] ?? []) as Schema[];
  const name = (reference['$ref'] as string | undefined)?.split('/').at(-1);
  return name === undefined ? schema : (committed['components'].schemas[name] as Schema);
}

const roles = fc.constantFrom('user', 'admin');

/** Parameters that need certain values. The document describes them only as strings. */
const SPECIAL_VALUES: Record<string, fc.Arbitrary<unknown>> = {
  id: fc.integer({ min: 0, max: 2 }).map((index) => targets[index]?.id ?? 'nobody'),
  sessionId: fc.integer({ min: 1, max: 600 }).map((number) => `made${number}`),
  role: fc.oneof(roles, fc.uniqueArray(roles, { minLength: 1 })),
  image: fc.option(fc.webUrl(), { nil: null }),
  'If-Match': fc.constantFrom('*', '"another"'),
  provider: fc.constantFrom('credential', 'github'),
  actorId: fc.constant('nobody'),
  targetUserId: fc.integer({ min: 0, max: 1 }).map((index) => targets[index]?.id ?? 'nobody'),
  ip: fc.constantFrom('203.0.113.7', '203.0.113.0/24', '2001:db8::/32'),
  // Conditions that match no session, because other inputs need the sessions.
  filter: fc.constantFrom({ ip: '203.0.113.0/24' }, { userId: 'nobody', state: 'expired' }),
};

function validInput({ parameters, body }: Operation): fc.Arbitrary<Input> {
  const parametersIn = (location: string) =>
    parameters.filter((parameter) => parameter.in === location);
  // A valid cursor comes from a response and cannot be generated. Invalid cursors are tested below.
  const queries = parametersIn('query').filter(({ name }) => name !== 'cursor');
  const record = (list: Operation['parameters'], optional: boolean) =>
    fc.record(
      Object.fromEntries(
        list.map(({ name, schema }) => [
          name,
          name === 'role' ? roles : (SPECIAL_VALUES[name] ?? valueOf(schema)),
        ]),
      ),
      optional ? { requiredKeys: [] } : {},
    );
  return fc
    .record({
      path: record(parametersIn('path'), false),
      query: record(queries, true),
      headers: record(parametersIn('header'), true),
      body: body === undefined ? fc.constant(undefined) : valueOf(body),
    })
    .map(({ query, ...input }) => ({
      ...input,
      query: Object.entries(query).map(([name, value]): [string, string] => [name, String(value)]),
    })) as fc.Arbitrary<Input>;
}

// ── Invalid inputs ─────────────────────────────────────────────────────────────────────────────

interface Fault {
  /** The field that the response must name, if the fault is in a field. */
  field?: string;
  statuses: number[];
  apply: (input: Input) => Input;
}

const inherited = ['__proto__', 'constructor', 'toString', 'hasOwnProperty'];
const unknownName = fc.oneof(
  fc.constantFrom(...inherited, '$or', '$like', 'role[$ne]', 'banned[]', 'isAdmin', 'password'),
  fc.stringMatching(/^x[a-z0-9_]{1,20}$/),
);
const nonText = fc.constantFrom<unknown>(5, true, {}, ['x'], { $like: '%' }, { toString: 'x' });
const badText = (max: number) => fc.constantFrom('a\0b', 'x'.repeat(max + 1));
/** Only for bodies. A query would replace a lone surrogate by a valid character. */
const loneSurrogate = fc.constantFrom('\ud800', 'half \udc00');

function faultsOf(operation: Operation): fc.Arbitrary<Fault> {
  const { parameters, body, isPublic } = operation;
  const faults: fc.Arbitrary<Fault>[] = [];
  const queries = parameters.filter((parameter) => parameter.in === 'query');
  if (!isPublic) faults.push(unknownName.map(unknownQuery));
  for (const { name, schema } of queries)
    faults.push(badQuery(schema).map((value) => inQuery(name, value)));
  if (queries.some(({ name }) => name === 'cursor')) faults.push(badCursor);
  for (const [from, to] of TIME_RANGES) {
    if (queries.some(({ name }) => name === from))
      faults.push(fc.constant(reversedRange(from, to)));
  }
  for (const { name } of parameters.filter((parameter) => parameter.in === 'path')) {
    faults.push(badPath.map((value) => inPath(name, value)));
  }
  if (!isPublic) faults.push(badCredential);
  if (body) faults.push(...bodyFaults(resolve(body)));
  return fc.oneof(...faults);
}

const unknownQuery = (field: string): Fault => ({
  field,
  statuses: [400],
  apply: (input) => ({ ...input, query: [...input.query, [field, 'x']] }),
});

const inQuery = (field: string, values: string[]): Fault => ({
  field,
  statuses: [400],
  apply: (input) => ({
    ...input,
    query: [
      ...input.query.filter(([name]) => name !== field),
      ...values.map((value): [string, string] => [field, value]),
    ],
  }),
});

const one = (...values: string[]) => fc.constantFrom(...values.map((value) => [value]));

/** One wrong value, or two values where the parameter takes one. */
function badQuery(schema: Schema): fc.Arbitrary<string[]> {
  if (schema['enum']) return one('nope', '', 'CURRENT', 'a\0b');
  if (schema['type'] === 'boolean') return one('yes', '1', '', 'TRUE', 'null');
  if (schema['type'] === 'integer') {
    return one('0', '-1', '1.5', 'abc', '1e3', '0x10', '', String(Number(schema['maximum']) + 1));
  }
  if (schema['format'] === 'date-time') return one('yesterday', '2026-13-01', '', '1', 'a\0b');
  const max = Number(schema['maxLength']);
  return fc.oneof(
    badText(max).map((value) => [value]),
    fc.constantFrom<string[][]>([''], ['one', 'two']),
  );
}

const TIME_RANGES = [
  ['createdFrom', 'createdTo'],
  ['from', 'to'],
] as const;

const reversedRange = (from: string, to: string): Fault => {
  const fault = inQuery(from, ['2030-01-02T00:00:00Z']);
  const earlier = inQuery(to, ['2030-01-01T00:00:00Z']);
  return { ...fault, apply: (input) => earlier.apply(fault.apply(input)) };
};

/** Parameters that a cursor excludes, or whose faults would be reported first. */
const EXCLUDED_WITH_CURSOR = new Set(['page', 'sort', 'createdFrom', 'createdTo', 'from', 'to']);

const CURSOR_OF_OTHER_SORT = encodeCursor({ sort: '-email', value: 'ada@example.com', id: 'x' });
const TAMPERED_CURSOR = encodeCursor({ sort: '-createdAt', value: '2026-01-01', id: 'x' }).replace(
  /.(.)$/,
  (_, last: string) => (last === 'A' ? 'BB' : 'AA'),
);

const badCursor: fc.Arbitrary<Fault> = fc
  .oneof(
    fc.base64String({ minLength: 4 }),
    fc.constantFrom(
      'x',
      'eyJzb3J0IjoibmFtZSJ9',
      '..',
      'null',
      CURSOR_OF_OTHER_SORT,
      TAMPERED_CURSOR,
    ),
  )
  .map((cursor) => inQuery('cursor', [cursor]))
  .map((fault) => ({
    ...fault,
    apply: (input) =>
      fault.apply({
        ...input,
        query: input.query.filter(([name]) => !EXCLUDED_WITH_CURSOR.has(name)),
      }),
  }));

const badPath = fc.constantFrom(
  '%00',
  'a%00b',
  '%ff%fe',
  '%c0%af',
  '%zz',
  '%',
  'x'.repeat(10_000),
  '%ed%a0%80',
  'x%2fsessions',
);

const inPath = (name: string, value: string): Fault => ({
  statuses: [400, 404],
  apply: (input) => ({ ...input, path: { ...input.path, [name]: value } }),
});

const badCredential: fc.Arbitrary<Fault> = fc
  .constantFrom(
    '',
    'Bearer',
    'Bearer a.b.c',
    'Basic eDp5',
    `Bearer ${'x'.repeat(9000)}`,
    'Bearer x y',
  )
  .map((authorization) => ({
    statuses: [401],
    apply: (input) => ({ ...input, headers: { ...input.headers, authorization } }),
  }));

const inBody = (field: string, value: unknown): Fault => ({
  field,
  statuses: [400],
  // As text, because an object literal with `__proto__` would set the prototype.
  apply: (input) => ({
    ...input,
    raw: {
      type: 'application/json',
      text: `{${Object.entries(input.body as object)
        .filter(([name]) => name !== field)
        .map(([name, content]) => `${JSON.stringify(name)}:${JSON.stringify(content)},`)
        .join('')}${JSON.stringify(field)}:${JSON.stringify(value)}}`,
    },
  }),
});
const asBody = (type: string, body: string, status: number): Fault => ({
  statuses: [status],
  apply: (input) => ({ ...input, raw: { type, text: body } }),
});

/** By the type of a property that is no text. */
const WRONG_VALUES: Record<string, fc.Arbitrary<unknown>> = {
  boolean: fc.constantFrom<unknown>('yes', 5, {}, ['x']),
  integer: fc.constantFrom<unknown>('x', -1, 1.5, true, {}, ['x']),
  object: fc.constantFrom<unknown>('x', 5, [], {}, { nope: 1 }, { ip: 'x' }, { userId: null }),
};

function bodyFaults(schema: Schema): fc.Arbitrary<Fault>[] {
  const properties = Object.entries(schema['properties'] as Schema) as [string, Schema][];
  return [
    unknownName.map((name) => inBody(name, 'x')),
    ...properties.map(([name, property]) => {
      const isList = property['oneOf'] !== undefined;
      const wrong = isList
        ? fc.constantFrom<unknown>(
            5,
            true,
            {},
            [5],
            [],
            [{}],
            'nobody’s role',
            ['user', 'user'],
            null,
          )
        : (WRONG_VALUES[resolve(property)['type'] as string] ??
          fc.oneof(nonText, loneSurrogate, badText(Number(property['maxLength']))));
      return wrong.map((value) => inBody(name, value));
    }),
    ...(schema['properties']['expiresAt']
      ? [
          fc
            .constantFrom('2001-01-01T00:00:00Z', 'soon', '2030-02-30')
            .map((value) => inBody('expiresAt', value)),
        ]
      : []),
    ...(schema['properties']['name']
      ? [
          fc
            .constantFrom('', '   ', 'two\nlines', '\u0007', null)
            .map((value) => inBody('name', value)),
        ]
      : []),
    fc.constantFrom(
      asBody('application/json', '{"name":', 400),
      asBody('application/json', '[]', 400),
      asBody('application/json', '[{}]', 400),
      asBody('application/json', '"text"', 400),
      asBody('application/json', '{"a":{"b":{"c":{"d":{"e":{"f":{}}}}}}}', 400),
      asBody('application/json', `{"name":"${'x'.repeat(1_000_000)}"}`, 413),
      asBody('text/plain', '{"name":"Ada"}', 415),
      asBody('application/x-www-form-urlencoded', 'name=Ada', 415),
    ),
  ];
}

// ── Requests ────────────────────────────────────────────────────────────────────────────────────

async function send({ method, template }: Operation, input: Input): Promise<TestResponse> {
  const path = template.replaceAll(/\{(\w+)\}/g, (_, name: string) => input.path[name] ?? '');
  const query = new URLSearchParams(input.query).toString();
  const payload =
    input.raw ??
    (input.body === undefined
      ? undefined
      : { type: 'application/json', text: JSON.stringify(input.body) });
  const response = await fetch(`${stack.gatehouse.url}${path}${query === '' ? '' : `?${query}`}`, {
    method,
    headers: {
      authorization: `Bearer ${admin.token}`,
      ...(payload ? { 'content-type': payload.type } : {}),
      ...input.headers,
    },
    ...(payload ? { body: payload.text } : {}),
  });
  const responseText = await response.text();
  const { status, headers } = response;
  const answer = {
    status,
    headers,
    body: responseText === '' ? undefined : JSON.parse(responseText),
  };
  // Such a path can belong to another operation, so its response is not checked here.
  if (!/[%]|x{300}/.test(path)) check(method, template, answer);
  return answer;
}

const readUsers = () =>
  stack.database.sql(
    'select id, name, image, role, banned, "banReason", "updatedAt" from "user" order by id',
  );

const options = { numRuns: RUNS, seed: SEED, endOnFailure: true };

describe.each(
  OPERATIONS.map((operation) => [`${operation.method} ${operation.template}`, operation] as const),
)('generated inputs of %s', (name, operation) => {
  it(`responds to ${RUNS} valid inputs of ${name} as the document states`, async () => {
    const statuses = new Set<number>();
    await fc.assert(
      fc.asyncProperty(validInput(operation), async (input) => {
        const { status } = await send(operation, input);
        statuses.add(status);
        expect(status).toBeLessThan(500);
      }),
      options,
    );
    expect(statuses).toContain(200);
  }, 60_000);

  // Public operations take no input, so no input can be invalid.
  if (operation.isPublic) return;
  it(`refuses ${RUNS} invalid inputs of ${name} by field name and changes no user`, async () => {
    expect(claimsOf(admin.token)['sid']).toEqual(expect.any(String));
    const before = await readUsers();
    await fc.assert(
      fc.asyncProperty(validInput(operation), faultsOf(operation), async (input, fault) => {
        const { status, body } = await send(operation, fault.apply(input));
        expect(fault.statuses).toContain(status);
        expect(PROBLEMS[body.code as keyof typeof PROBLEMS].status).toBe(status);
        if (fault.field === undefined || body.code !== 'VALIDATION_ERROR') return;
        const fields = (body.errors as { field: string }[]).map(({ field }) => field.split('.')[0]);
        expect(fields).toContain(fault.field);
      }),
      options,
    );
    expect(await readUsers()).toEqual(before);
  }, 60_000);
});
