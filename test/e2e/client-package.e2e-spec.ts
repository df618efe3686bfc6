import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { runInNewContext } from 'node:vm';
import type * as Client from '@gatehouse/client';
import type { BrowserContext, Page } from 'playwright-core';
import type * as Examples from '../docs/client.js';
import { type Stack, startStack } from '../support/stack.js';
import { signUp } from '../support/users.js';

const MAX_BYTES = 10 * 1024;

/** A new Vite project into which the packed client is installed. */
let project: string;
beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'gatehouse-vite-'));
  cpSync('test/docs/vite-project', join(project, 'vite-project'), { recursive: true });
  cpSync('test/docs/client.ts', join(project, 'client.ts'));
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  // The dependencies are packed too, so that the test needs no registry.
  const packages = [
    'clients/typescript',
    'node_modules/openapi-fetch',
    'node_modules/openapi-typescript-helpers',
  ].map((folder) => pack(folder));
  npm(['install', '--offline', '--no-audit', '--no-fund', ...packages], project);
}, 120_000);
afterAll(() => rmSync(project, { recursive: true, force: true }));

/** Returns the path of the tarball. Only our own package is built first. */
function pack(folder: string): string {
  const isOurs = folder.startsWith('clients');
  const options = isOurs ? ['--foreground-scripts=false'] : ['--ignore-scripts'];
  const output = npm(['pack', '--json', `--pack-destination=${project}`, ...options], folder);
  const [{ filename }] = JSON.parse(output) as [{ filename: string }];
  return join(project, filename);
}

const npm = (args: string[], cwd: string) =>
  execFileSync('npm', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

/** Runs a program of this repository in the new project. */
function run(program: string, ...args: string[]) {
  const options = { cwd: join(project, 'vite-project'), encoding: 'utf8' } as const;
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [resolve('node_modules', program), ...args],
    options,
  );
  return { status, output: stdout + stderr };
}

/** Returns the minified script of a page. */
function buildScript(page: 'page' | 'size'): string {
  const { status, output } = run('vite/bin/vite.js', 'build', page, '--config', 'vite.config.js');
  if (status !== 0) throw new Error(output);
  const folder = join(project, 'vite-project', page, 'dist/assets');
  const [name = ''] = readdirSync(folder);
  return readFileSync(join(folder, name), 'utf8');
}

it('uses the same version of openapi-fetch in the package and in the tests', () => {
  const read = (path: string) =>
    JSON.parse(readFileSync(path, 'utf8')) as Record<string, Record<string, string>>;
  expect(read('clients/typescript/package.json')['dependencies']?.['openapi-fetch']).toBe(
    read('package.json')['devDependencies']?.['openapi-fetch'],
  );
});

it('compiles the examples and the types of problems in a new Vite project', () => {
  expect(run('typescript/bin/tsc', '-p', '.')).toEqual({ status: 0, output: '' });
}, 60_000);

it('needs less than 10 KB, and only what browsers, React Native and Node have in common', async () => {
  const script = buildScript('size');
  const bytes = Buffer.byteLength(script);
  process.stdout.write(`The client with openapi-fetch has ${bytes} bytes, minified.\n`);
  expect(bytes).toBeLessThan(MAX_BYTES);

  const seen: unknown[] = [];
  const pages = createServer((request, response) => {
    seen.push([request.method, request.url, request.headers.authorization]);
    const body = request.url === '/auth/token' ? { token: 't' } : { id: '1', name: 'Ada' };
    response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
  }).listen(0, '127.0.0.1');
  await once(pages, 'listening');
  const origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  try {
    const globals: Record<string, unknown> = {
      fetch,
      Request,
      Response,
      Headers,
      FormData,
      AbortController,
      setTimeout,
      clearTimeout,
    };
    runInNewContext(script, globals);
    const { createGatehouse } = globals['client'] as typeof Client;
    const gatehouse = createGatehouse({ api: origin, auth: `${origin}/auth` });
    const { data } = await gatehouse.PATCH('/api/v1/users/{id}', {
      params: { path: { id: '1' } },
      body: { name: 'Ada' },
    });
    expect(data?.name).toBe('Ada');
    expect(seen).toEqual([
      ['GET', '/auth/token', undefined],
      ['PATCH', '/api/v1/users/1', 'Bearer t'],
    ]);
  } finally {
    pages.closeAllConnections();
    pages.close();
  }
}, 60_000);

/** The executable that `CHROMIUM` names, or that of Debian. */
const chromium = [process.env['CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(
  (path) => path && existsSync(path),
);
if (!chromium) {
  process.stdout.write(
    'Chromium not found: the client is not tested in a browser (set CHROMIUM=path).\n',
  );
}

const withChromium = chromium ? describe : describe.skip;

// The page has another port, hence another origin. Its only credential is Better-Auth's cookie.
withChromium('client in a browser on another origin', () => {
  let stack: Stack;
  let pages: Server;
  let profile: string;
  let browser: BrowserContext;
  let page: Page;
  const requests: string[] = [];

  beforeAll(async () => {
    const script = buildScript('page');
    const html = readFileSync(join(project, 'vite-project/page/dist/index.html'), 'utf8');
    pages = createServer(({ url = '' }, response) => {
      const isScript = url.startsWith('/assets/');
      response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
      response.end(isScript ? script : html);
    }).listen(0, '127.0.0.1');
    await once(pages, 'listening');
    const origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
    stack = await startStack({ trustedOrigins: [origin] }, { CORS_ORIGINS: origin });
    profile = mkdtempSync(join(tmpdir(), 'gatehouse-chromium-'));
    const { chromium: launcher } = await import('playwright-core');
    browser = await launcher.launchPersistentContext(profile, {
      executablePath: chromium ?? '',
      headless: true,
      args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
    });
    page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    page.on('request', (request) =>
      requests.push(`${request.method()} ${new URL(request.url()).pathname}`),
    );
    await page.goto(origin);
  }, 120_000);

  afterAll(async () => {
    await browser?.close();
    await stack?.end();
    pages?.close();
    rmSync(profile, { recursive: true, force: true });
  });

  it('signs in with a cookie, shares one token request among parallel calls, and ends with the session', async () => {
    const { email, password } = await signUp(stack.authWithSid);
    const addresses = {
      api: stack.gatehouse.url,
      auth: `${stack.authWithSid.url}/api/auth`,
    };
    const outcome = await page.evaluate(
      async ({ api, auth, email, password }) => {
        const { createGatehouse, greet, rename } = (
          globalThis as unknown as { page: typeof Client & typeof Examples }
        ).page;
        const post = (action: string, body: object) =>
          fetch(`${auth}/${action}`, {
            method: 'POST',
            credentials: 'include',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify(body),
          });
        let signedOut = 0;
        const gatehouse = createGatehouse({ api, auth, signedOut: () => (signedOut += 1) });
        const before = await greet(gatehouse);
        const signedIn = (await post('sign-in/email', { email, password })).status;
        const parallel = await Promise.all(Array.from({ length: 5 }, () => greet(gatehouse)));
        const { data: me } = await gatehouse.GET('/api/v1/auth/me');
        const renamed = await rename(gatehouse, me?.id ?? '', (name) => `${name} II`);
        await post('sign-out', {});
        let after = await greet(gatehouse);
        // Gatehouse is notified of the sign-out a moment later.
        for (let times = 0; times < 50 && !after.includes('sign in'); times += 1) {
          await new Promise((later) => setTimeout(later, 50));
          after = await greet(gatehouse);
        }
        await new Promise((later) => setTimeout(later));
        return { before, signedIn, parallel, name: renamed.name, after, signedOut };
      },
      { ...addresses, email, password },
    );
    expect(outcome).toEqual({
      before: 'Please sign in again.',
      signedIn: 200,
      parallel: Array(5).fill('Hello, Ada Lovelace.'),
      name: 'Ada Lovelace II',
      after: 'Please sign in again.',
      // One call before the sign-in, and one after the sign-out.
      signedOut: 2,
    });
    // One before the sign-in, one for all calls, and one after the sign-out.
    expect(requests.filter((line) => line === 'GET /api/auth/token')).toHaveLength(3);
  }, 60_000);
});
