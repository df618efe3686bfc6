import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InvalidEnvironmentError, parseEnvironment } from '../../src/config/environment.js';

const folder = mkdtempSync(join(tmpdir(), 'gatehouse-permissions-'));
const path = join(folder, 'permissions.json');
afterAll(() => rmSync(folder, { recursive: true }));

const VARIABLES = { ROLES: 'user,support,admin', PERMISSIONS_FILE: path };

function errorsOf(content: string | Buffer, variables: Record<string, string> = {}): string[] {
  writeFileSync(path, content);
  try {
    parseEnvironment({ ...VARIABLES, ...variables });
  } catch (error) {
    if (error instanceof InvalidEnvironmentError) return error.errors;
    throw error;
  }
  return [];
}

describe('PERMISSIONS_FILE', () => {
  it('is read with the environment', () => {
    const text = JSON.stringify({
      admin: { user: ['list', 'anything-else'], project: ['archive'] },
      user: { user: [] },
    });
    expect(errorsOf(`\uFEFF${text}`)).toEqual([]);
    expect(parseEnvironment(VARIABLES).permissions).toEqual(
      new Map([
        [
          'admin',
          new Map([
            ['user', new Set(['list', 'anything-else'])],
            ['project', new Set(['archive'])],
          ]),
        ],
        ['user', new Map([['user', new Set()]])],
      ]),
    );
  });

  it('gives the prototype of objects no meaning', () => {
    const text = '{"__proto__": {"user": ["ban"]}, "constructor": {"__proto__": ["ban"]}}';
    expect(errorsOf(text, { ROLES: 'user,admin,__proto__,constructor' })).toEqual([]);
    const { permissions } = parseEnvironment({
      ...VARIABLES,
      ROLES: 'user,admin,__proto__,constructor',
    });
    expect([...(permissions?.keys() ?? [])]).toEqual(['__proto__', 'constructor']);
    expect([...(permissions?.get('constructor')?.keys() ?? [])]).toEqual(['__proto__']);
    expect({}).not.toHaveProperty('user');
  });

  it.each([
    ['', 'is not valid JSON: it ends too early'],
    ['{\n  "admin": {', 'is not valid JSON (line 2 column 13)'],
    ['{\n  "admin": {"user": ["list",]}\n}', 'is not valid JSON (line 2 column 29)'],
    ['{\n  "admin": {},\n}', 'is not valid JSON (line 3 column 1)'],
    ['DATABASE_URL=postgres://u:hunter2@db', 'is not valid JSON (line 1 column 1)'],
    ['[]', 'must be an object with roles'],
    ['null', 'must be an object with roles'],
    ['{}', 'must have at least one role'],
  ])('is refused with one fault if its text is %j', (text, fault) => {
    expect(errorsOf(text)).toEqual([`PERMISSIONS_FILE ${fault}`]);
  });

  it('is refused with the place of every fault', () => {
    const errors = errorsOf(
      JSON.stringify({
        admin: { user: 'list', session: ['list', 7, ''], audit: ['list', 'list', ' export'] },
        support: ['list'],
        suport: { 'a b': [], user: null },
      }),
      { PORT: 'x' },
    );
    expect(errors).toEqual([
      'PORT must be a whole number from 0 to 65535',
      'PERMISSIONS_FILE "admin"."user": must be a list of actions',
      'PERMISSIONS_FILE "admin"."session"[1]: must be the name of an action',
      'PERMISSIONS_FILE "admin"."session"[2]: must be the name of an action',
      'PERMISSIONS_FILE "admin"."audit"[1]: is repeated',
      'PERMISSIONS_FILE "admin"."audit"[2]: must be the name of an action',
      'PERMISSIONS_FILE "support": must be an object with resources',
      'PERMISSIONS_FILE "suport": ROLES does not list this role',
      'PERMISSIONS_FILE "suport"."a b": must be the name of a resource',
      'PERMISSIONS_FILE "suport"."user": must be a list of actions',
    ]);
  });

  it.each([
    ['a role', '{"admin": {"user": ["ban"]}, "support": {}, "admin": {}}', '"admin"'],
    ['an escaped role', '{"support": {}, "\\u0073upport": {"user": ["list"]}}', '"support"'],
    ['a resource', '{"admin": {"user": ["ban"], "session": [], "user": []}}', '"admin"."user"'],
  ])('is refused if it has %s twice', (_what, text, place) => {
    expect(errorsOf(text)).toEqual([`PERMISSIONS_FILE ${place}: is repeated`]);
  });

  it('may give the same resource and action to several roles', () => {
    expect(errorsOf('{"admin": {"user": ["user"]}, "user": {"user": ["user"]}}')).toEqual([]);
  });

  it.each([
    ['is missing', join(folder, 'none.json'), 'there is no such file'],
    ['is a folder', folder, 'it is a folder'],
  ])('is refused if it %s', (_what, file, reason) => {
    expect(errorsOf('{}', { PERMISSIONS_FILE: file })).toEqual([
      `PERMISSIONS_FILE cannot be read: ${reason}`,
    ]);
  });
});
