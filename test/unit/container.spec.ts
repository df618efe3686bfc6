import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DockerfileBuild, readDockerfile, withoutIgnored } from '../../tools/dockerfile.ts';
import { Environment } from '../../src/config/environment.js';

const dockerfile = readFileSync('Dockerfile', 'utf8');
const compose = readFileSync('compose.yaml', 'utf8');
const stages = readDockerfile(dockerfile);
const image = stages.at(-1)!;
const project = JSON.parse(readFileSync('package.json', 'utf8')) as {
  scripts: Record<string, string>;
  devDependencies: Record<string, string>;
  allowScripts: Record<string, boolean>;
};
const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
  packages: Record<string, { hasInstallScript?: boolean; resolved?: string }>;
};

function textOf(name: string, stage = image): string {
  return stage.instructions.findLast((instruction) => instruction.name === name)?.text ?? '';
}

describe('Dockerfile', () => {
  it('builds on the Node that .nvmrc and the dev dependency name', () => {
    const major = readFileSync('.nvmrc', 'utf8').trim();
    const names = stages.map(({ name }) => name);
    const bases = stages.map(({ base }) => base).filter((base) => !names.includes(base));
    expect(new Set(bases)).toEqual(new Set([`node:${major}-slim`]));
    expect(project.devDependencies['node']?.split('.', 1)).toEqual([major]);
  });

  it('runs no stage with a command as root', () => {
    for (const stage of stages.filter((one) => textOf('CMD', one) !== '')) {
      expect(textOf('USER', stage)).toMatch(/^[1-9]\d*$/);
    }
  });

  it('makes Node itself process 1, which hears SIGTERM', () => {
    const [program, ...args] = JSON.parse(textOf('CMD')) as string[];
    expect(program).toBe('node');
    const command = ['exec env NODE_ENV=production', program, ...args].join(' ');
    expect(command).toBe(project.scripts['start:prod']);
    expect(textOf('STOPSIGNAL')).toBe('SIGTERM');
  });

  it('checks its health with nothing but Node', () => {
    const [program, ...args] = JSON.parse(textOf('HEALTHCHECK').replace('CMD', '')) as string[];
    expect(program).toBe('node');
    expect(args.join(' ')).toContain('/health/live');
    expect(dockerfile).not.toMatch(/\b(RUN|CMD)\b.*\b(curl|wget)\b/);
  });

  it('sets only variables that Gatehouse reads, and no secret', () => {
    const names = [...textOf('ENV').matchAll(/(\w+)=/g)].map(([, name]) => name);
    expect(Object.keys(new Environment())).toEqual(expect.arrayContaining(names));
    expect(textOf('ENV')).toContain('NODE_ENV=production');
    expect(textOf('ENV')).toContain(`PORT=${textOf('EXPOSE')}`);
    expect(textOf('ENV')).not.toMatch(/SECRET|PASSWORD|_URL/);
  });

  it('takes only what was built from the stages before it', () => {
    const copies = image.instructions.filter(({ name }) => name === 'COPY');
    expect(copies.map(({ flags }) => flags)).toEqual(copies.map(() => ({ from: 'production' })));
  });

  it.each([
    ['a flag', 'FROM a AS b\nCOPY --link . .', 'COPY --link'],
    ['a variable', 'FROM a AS b\nENV A=$B', 'a variable in ENV'],
    ['a base without a name', 'FROM a', 'FROM a'],
    ['an instruction in lower case', 'FROM a AS b\nrun x', 'run x'],
  ])('is read by a program that refuses %s', (_what, text, complaint) => {
    expect(() => readDockerfile(text)).toThrow(complaint);
  });

  it.each([
    ['an instruction that it does not know', 'VOLUME /data', 'VOLUME'],
    ['a user by name', 'USER node', 'USER node'],
    ['a command in shell form', 'CMD node dist/src/main.js', 'the shell form'],
    ['a build step of another user', 'USER 1000\nRUN true', 'RUN after USER'],
  ])('is carried out by a program that refuses %s', (_what, instructions, complaint) => {
    const scratch = mkdtempSync(join(tmpdir(), 'gatehouse-container-'));
    const place = { context: scratch, scratch, env: {}, tell: () => undefined };
    const [major] = process.versions.node.split('.', 1);
    const build = new DockerfileBuild(`FROM node:${major}-slim AS image\n${instructions}`, place);
    expect(() => build.build()).toThrow(complaint);
    rmSync(scratch, { recursive: true });
  });
});

describe('.dockerignore', () => {
  const dockerignore = readFileSync('.dockerignore', 'utf8');

  it('keeps out what is private and what is built', () => {
    const kept = ['package.json', 'src/main.ts', 'tools/better-auth-server.ts', '.npmrc'];
    const left = [
      '.env',
      '.env.local',
      'src/.env',
      'tools/.env.production',
      '.git/config',
      '.data/postgres/PG_VERSION',
      'tools/.data/lock',
      'node_modules/pg/package.json',
      'src/node_modules/pg/package.json',
      'dist/src/main.js',
      'npm-debug.log',
      'src/debug.log',
      'test/support/test-app.ts',
      '.ci/run',
      'README.md',
    ];
    expect(withoutIgnored([...kept, ...left], dockerignore)).toEqual(kept);
  });
});

describe('compose.yaml', () => {
  it('sets only variables that Gatehouse reads', () => {
    const [, block = ''] =
      /x-gatehouse:[\s\S]*?environment:\n((?: {4}\w+:.*\n)+)/.exec(compose) ?? [];
    const names = [...block.matchAll(/^ {4}(\w+):/gm)].map(([, name]) => name);
    expect(names).toContain('DATABASE_URL');
    expect(Object.keys(new Environment())).toEqual(expect.arrayContaining(names));
  });

  it('runs the API as a role that cannot change audit events, and migrates as the owner', () => {
    const [, api = ''] = /x-gatehouse:[\s\S]*?(?=\nservices:)/.exec(compose) ?? [];
    const roleOf = (text: string) => /DATABASE_URL: postgresql:\/\/(\w+):/.exec(text)?.[1];
    const migration = /\n {2}migrate:[\s\S]*?(?=\n {2}api:)/.exec(compose)?.[0] ?? '';
    const role = roleOf(api || compose);
    expect(role).toBe('gatehouse');
    expect(roleOf(migration)).toBe('postgres');
    expect(migration).toContain(`DATABASE_RUNTIME_ROLE: ${role}\n`);
    expect(compose).toContain(
      `content: create role ${role} login password '\${GATEHOUSE_PASSWORD}';`,
    );
  });

  it('has no default for a secret', () => {
    const variables = [...compose.matchAll(/\$\{(\w+)([^}]*)\}/g)].filter(
      ([, name]) => name !== 'CORS_ORIGINS',
    );
    for (const name of new Set(variables.map(([, variable]) => variable))) {
      const uses = variables.filter(([, variable]) => variable === name).map(([, , rest]) => rest);
      expect(uses.some((rest) => rest?.startsWith(':?'))).toBe(true);
      expect(uses.every((rest) => rest === '' || rest?.startsWith(':?'))).toBe(true);
    }
  });

  it('builds stages that exist, and pins the images that it pulls', () => {
    const targets = [...compose.matchAll(/target: ([\w-]+)/g)].map(([, target]) => target);
    expect(targets.length).toBeGreaterThan(0);
    expect(stages.map(({ name }) => name)).toEqual(expect.arrayContaining(targets));
    expect(`${compose}${dockerfile}`).not.toMatch(/:latest\b/);
    expect(compose).toMatch(/image: postgres:18\n/);
  });

  it('migrates as npm run migrate does, before the API starts', () => {
    const [, command = ''] = /migrate:\n[\s\S]*?command: (\[.*\])/.exec(compose) ?? [];
    const words = JSON.parse(command.replaceAll("'", '"')) as string[];
    expect(words.join(' ')).toBe(project.scripts['migrate']);
    expect(compose).toMatch(
      / {2}api:[\s\S]*?migrate: \{ condition: service_completed_successfully \}/,
    );
  });
});

describe('package-lock.json', () => {
  it('says of every package with an install script whether it may run', () => {
    const paths = Object.keys(lock.packages).filter(
      (path) => lock.packages[path]?.hasInstallScript,
    );
    const names = new Set(paths.map((path) => path.replace(/^.*node_modules\//, '')));
    expect(new Set(Object.keys(project.allowScripts))).toEqual(names);
  });

  it('names no registry', () => {
    expect(Object.values(lock.packages).filter(({ resolved }) => resolved)).toEqual([]);
  });
});
