import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parsePermissions } from '../../src/config/permissions-file.js';
import { runBuilt } from '../support/built-program.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { writePermissions } from '../support/permissions-file.js';

// Below the project, so that the file can import Better-Auth.
const folder = mkdtempSync(resolve('test/e2e/permissions-'));
let database: TestDatabase;

beforeAll(async () => (database = await createDatabase()));

afterAll(async () => {
  rmSync(folder, { recursive: true });
  await database.drop();
});

/** Runs `npm run permissions` on a file with this content. */
async function print(content: string) {
  const path = join(folder, 'permissions.ts');
  writeFileSync(path, content);
  return runBuilt('src/cli/permissions.js', {}, [path]);
}

const ACCESS = `
  import { createAccessControl } from 'better-auth/plugins/access';
  import { adminAc, defaultStatements, userAc } from 'better-auth/plugins/admin/access';

  export const ac = createAccessControl({
    ...defaultStatements,
    audit: ['list', 'export'],
    project: ['archive'],
  } as const);
  const adminRole = ac.newRole({ ...adminAc.statements, audit: ['list', 'export'] });
  const supportRole = ac.newRole({ user: ['list', 'get'], session: ['list'], project: ['archive'] });
`;

const EXPECTED = {
  admin: {
    user: expect.arrayContaining(['list', 'ban', 'set-role', 'impersonate']),
    session: ['list', 'revoke', 'delete'],
    audit: ['list', 'export'],
  },
  support: { user: ['list', 'get'], session: ['list'], project: ['archive'] },
  user: { user: [], session: [] },
};

describe('npm run permissions', () => {
  it.each([
    ['separate exports', `export { adminRole as admin, supportRole as support, userAc as user };`],
    [
      'an object of roles, even if the file also exports a single role',
      `export const roles = { admin: adminRole, support: supportRole, user: userAc };
       export { supportRole };`,
    ],
    [
      'a default export',
      `export default { ac, admin: adminRole, support: supportRole, user: userAc };`,
    ],
  ])('prints the roles of Better-Auth in %s', async (_what, exports) => {
    const { code, stdout, stderr } = await print(ACCESS + exports);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const roles = JSON.parse(stdout) as object;
    expect(roles).toEqual(EXPECTED);
    expect(parsePermissions(stdout, Object.keys(roles)).faults).toEqual([]);
  });

  it('prints the roles of the example in the documents', async () => {
    const page = readFileSync('docs/better-auth.md', 'utf8');
    const [, example = ''] = /```ts\n(\/\/ auth\/permissions\.ts.*?)```/s.exec(page) ?? [];
    const { code, stdout } = await print(example);
    expect({ code, roles: JSON.parse(stdout) }).toEqual({
      code: 0,
      roles: {
        ...EXPECTED,
        support: { user: ['list', 'get'], session: ['list', 'revoke'] },
      },
    });
  });

  it('ends even if the file keeps the process alive', async () => {
    const { code, stdout } = await print(`${ACCESS}
      setInterval(() => undefined, 1000);
      export { supportRole as support };`);
    expect({ code, roles: JSON.parse(stdout) }).toEqual({
      code: 0,
      roles: { support: EXPECTED.support },
    });
  });

  it.each([
    [
      'exports no role',
      `${ACCESS} export const other = 1;`,
      /exports no role of createAccessControl/,
    ],
    [
      'imports a file without its extension',
      `import './other';`,
      /^Cannot import .*file extensions\.\n$/s,
    ],
    ['is not valid', `export const = 1;`, /^Cannot import .*\n/],
  ])('exits with 1 and a sentence if the file %s', async (_what, content, message) => {
    const { code, stdout, stderr } = await print(content);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  it('explains its use without a path', async () => {
    const { code, stderr } = await runBuilt('src/cli/permissions.js', {});
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'Usage: npm run permissions -- path/to/permissions.ts\n',
    });
  });
});

describe('other programs with PERMISSIONS_FILE', () => {
  const environment = () => ({
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: 'http://127.0.0.1:9',
    PORT: '0',
  });

  it.each(['src/main.js', 'src/cli/doctor.js'])(
    'exits with 1 and every fault in %s',
    async (program) => {
      const path = join(folder, 'faults.json');
      writeFileSync(path, '{"admin": {"user": "list"}, "owner": {"user": [1]}}');
      const { code, stdout, stderr } = await runBuilt(program, {
        ...environment(),
        PERMISSIONS_FILE: path,
      });
      expect({ code, stdout, stderr }).toEqual({
        code: 1,
        stdout: '',
        stderr: [
          'The environment is not usable:',
          '  - PERMISSIONS_FILE "admin"."user": must be a list of actions',
          '  - PERMISSIONS_FILE "owner": ROLES does not list this role',
          '  - PERMISSIONS_FILE "owner"."user"[0]: must be the name of an action',
          '',
        ].join('\n'),
      });
    },
  );

  it('lists the roles of users that the file lacks in npm run doctor', async () => {
    await database.sql(
      `insert into "user" (id, name, email, "emailVerified", "updatedAt", role)
       select 'u' || n, 'Somebody', n || '@example.com', false, now(), role
       from unnest(array['user,moderator', 'moderator', 'admin', 'constructor', '', null]) with ordinality r (role, n)`,
    );
    const { code, stdout } = await runBuilt('src/cli/doctor.js', {
      ...environment(),
      ...writePermissions({ admin: { user: ['list'] } }),
    });
    expect(code).toBe(0);
    expect(stdout.split('\n').filter((line) => line.includes('PERMISSIONS_FILE'))).toEqual([
      'warning PERMISSIONS_FILE lacks the role "constructor", so it gives no permissions. Users who have it: 1.',
      'warning PERMISSIONS_FILE lacks the role "moderator", so it gives no permissions. Users who have it: 2.',
    ]);
    const withoutFile = await runBuilt('src/cli/doctor.js', environment());
    expect(withoutFile.stdout).not.toContain('PERMISSIONS_FILE');
  });
});
