import { readFileSync } from 'node:fs';
import { Environment } from '../../src/config/environment.js';

const dockerfile = readFileSync('Dockerfile', 'utf8');
const compose = readFileSync('compose.yaml', 'utf8');
/** Without comments, one instruction a line; each stage begins with its FROM. */
const stages = dockerfile
  .replaceAll(/^#.*\n/gm, '')
  .replaceAll(/\\\n\s*/g, '')
  .split(/^(?=FROM )/m)
  .filter((stage) => stage.startsWith('FROM '));
const image = stages.at(-1) ?? '';
const project = JSON.parse(readFileSync('package.json', 'utf8')) as {
  scripts: Record<string, string>;
  devDependencies: Record<string, string>;
  allowScripts: Record<string, boolean>;
};
const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
  packages: Record<string, { hasInstallScript?: boolean; resolved?: string }>;
};

/** The text after the last instruction of that name in a stage. */
function instruction(name: string, stage = image): string {
  return [...stage.matchAll(new RegExp(`^${name} (.+)$`, 'gm'))].at(-1)?.[1] ?? '';
}

function stageNames(): string[] {
  return stages.map((stage) => / AS (\S+)/.exec(stage)?.[1] ?? '');
}

describe('Dockerfile', () => {
  it('builds on the Node version of .nvmrc and of the development dependency', () => {
    const major = readFileSync('.nvmrc', 'utf8').trim();
    const bases = stages.map((stage) => /^FROM (\S+)/.exec(stage)?.[1] ?? '');
    const pulled = bases.filter((base) => !stageNames().includes(base));
    expect(new Set(pulled)).toEqual(new Set(['${NODE_IMAGE}']));
    expect(dockerfile).toContain(`ARG NODE_IMAGE=node:${major}-slim\n`);
    expect(project.devDependencies['node']?.split('.', 1)).toEqual([major]);
  });

  it('runs every command as a numbered user that is not root', () => {
    const withCommand = stages.filter((stage) => instruction('CMD', stage) !== '');
    expect(withCommand.length).toBeGreaterThan(0);
    for (const stage of withCommand) expect(instruction('USER', stage)).toMatch(/^[1-9]\d*$/);
  });

  it('starts Node in exec form with the arguments of npm run start:prod', () => {
    const [program, ...args] = JSON.parse(instruction('CMD')) as string[];
    expect(program).toBe('node');
    const command = ['exec env NODE_ENV=production', program, ...args].join(' ');
    expect(command).toBe(project.scripts['start:prod']);
    expect(instruction('STOPSIGNAL')).toBe('SIGTERM');
  });

  it('checks its health with Node only', () => {
    const check = instruction('HEALTHCHECK').replace(/^.*?CMD /, '');
    const [program, ...args] = JSON.parse(check) as string[];
    expect(program).toBe('node');
    expect(args.join(' ')).toContain('/health/live');
    expect(dockerfile).not.toMatch(/\b(RUN|CMD)\b.*\b(curl|wget)\b/);
  });

  it('sets only variables that Gatehouse reads, and no secret', () => {
    const env = instruction('ENV');
    const names = [...env.matchAll(/(\w+)=/g)].map(([, name]) => name);
    expect(image.match(/^ENV /gm)).toHaveLength(1);
    expect(Object.keys(new Environment())).toEqual(expect.arrayContaining(names));
    expect(env).toContain('NODE_ENV=production');
    expect(env).toContain(`PORT=${instruction('EXPOSE')}`);
    expect(dockerfile).not.toMatch(/^(ENV|ARG) .*(SECRET|PASSWORD|TOKEN|_URL)/m);
  });

  it('copies only built files into the image', () => {
    const copies = image.match(/^COPY .*$/gm) ?? [];
    expect(copies.length).toBeGreaterThan(0);
    for (const copy of copies) expect(copy).toMatch(/^COPY --from=production \/app\//);
  });
});

describe('.dockerignore', () => {
  const patterns = readFileSync('.dockerignore', 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));

  it('excludes everything, then admits only the files of the build', () => {
    expect(patterns[0]).toBe('*');
    expect(patterns.filter((pattern) => pattern.startsWith('!'))).toEqual([
      '!package.json',
      '!package-lock.json',
      '!.npmrc',
      '!nest-cli.json',
      '!tsconfig.json',
      '!tsconfig.build.json',
      '!mikro-orm.config.ts',
      '!src',
      '!migrations',
      '!tools',
    ]);
  });

  // The last pattern that matches a file decides.
  it('excludes private files inside the admitted folders', () => {
    const afterAdmitted = patterns.slice(
      patterns.findLastIndex((line) => line.startsWith('!')) + 1,
    );
    expect(afterAdmitted).toEqual([
      '**/.env*',
      '**/.git',
      '**/.data',
      '**/node_modules',
      '**/*.log',
    ]);
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

  it('runs the API as a role without rights on audit events, and migrates as the owner', () => {
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

  it('gives no secret a default value', () => {
    const variables = [...compose.matchAll(/\$\{(\w+)([^}]*)\}/g)].filter(
      ([, name]) => name !== 'CORS_ORIGINS',
    );
    for (const name of new Set(variables.map(([, variable]) => variable))) {
      const uses = variables.filter(([, variable]) => variable === name).map(([, , rest]) => rest);
      expect(uses.some((rest) => rest?.startsWith(':?'))).toBe(true);
      expect(uses.every((rest) => rest === '' || rest?.startsWith(':?'))).toBe(true);
    }
  });

  it('builds existing stages and pins the images that it pulls', () => {
    const targets = [...compose.matchAll(/target: ([\w-]+)/g)].map(([, target]) => target);
    expect(targets.length).toBeGreaterThan(0);
    expect(stageNames()).toEqual(expect.arrayContaining(targets));
    expect(`${compose}${dockerfile}`).not.toMatch(/:latest\b/);
    expect(compose).toMatch(/image: postgres:18\n/);
  });

  it('runs the command of npm run migrate before it starts the API', () => {
    const [, command = ''] = /migrate:\n[\s\S]*?command: (\[.*\])/.exec(compose) ?? [];
    const words = JSON.parse(command.replaceAll("'", '"')) as string[];
    expect(words.join(' ')).toBe(project.scripts['migrate']);
    expect(compose).toMatch(
      / {2}api:[\s\S]*?migrate: \{ condition: service_completed_successfully \}/,
    );
  });
});

describe('package-lock.json', () => {
  it('decides for every package with an install script whether the script may run', () => {
    const paths = Object.keys(lock.packages).filter(
      (path) => lock.packages[path]?.hasInstallScript,
    );
    const names = new Set(paths.map((path) => path.replace(/^.*node_modules\//, '')));
    expect(new Set(Object.keys(project.allowScripts))).toEqual(names);
  });

  it('contains no registry address', () => {
    expect(Object.values(lock.packages).filter(({ resolved }) => resolved)).toEqual([]);
  });
});
