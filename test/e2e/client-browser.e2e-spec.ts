import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { stripTypeScriptTypes } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { signUp } from '../support/users.js';
import type * as Client from '../docs/client.js';
import { type Stack, startStack } from '../support/stack.js';

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
    const code = stripTypeScriptTypes(readFileSync('test/docs/client.ts', 'utf8'));
    pages = createServer(({ url }, response) => {
      const isCode = url === '/client.js';
      response.setHeader('content-type', isCode ? 'text/javascript' : 'text/html');
      response.end(isCode ? code : '<!doctype html><title>A page</title>');
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
  }, 60_000);

  afterAll(async () => {
    await browser?.close();
    await stack.end();
    pages.close();
    rmSync(profile, { recursive: true, force: true });
  });

  it('signs in with a cookie, shares one token request among parallel calls, and ends with the session', async () => {
    const { email, password } = await signUp(stack.authWithSid);
    const addresses = {
      api: `${stack.gatehouse.url}/api/v1`,
      auth: `${stack.authWithSid.url}/api/auth`,
    };
    const outcome = await page.evaluate(
      async ({ api, auth, email, password }) => {
        const path = '/client.js';
        const { Gatehouse, greet, rename } = (await import(path)) as typeof Client;
        const post = (action: string, body: object) =>
          fetch(`${auth}/${action}`, {
            method: 'POST',
            credentials: 'include',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify(body),
          });
        const gatehouse = new Gatehouse(api, auth);
        const before = await greet(gatehouse);
        const signedIn = (await post('sign-in/email', { email, password })).status;
        const parallel = await Promise.all(Array.from({ length: 5 }, () => greet(gatehouse)));
        const { body: me } = await gatehouse.call<Client.User>('GET', '/auth/me');
        const renamed = await rename(gatehouse, me.id, (name) => `${name} II`);
        await post('sign-out', {});
        let after = await greet(gatehouse);
        // Gatehouse is notified of the sign-out a moment later.
        for (let times = 0; times < 50 && !after.includes('sign in'); times += 1) {
          await new Promise((later) => setTimeout(later, 50));
          after = await greet(gatehouse);
        }
        return { before, signedIn, parallel, name: renamed.body.name, after };
      },
      { ...addresses, email, password },
    );
    expect(outcome).toEqual({
      before: 'Please sign in again.',
      signedIn: 200,
      parallel: Array(5).fill('Hello, Ada Lovelace.'),
      name: 'Ada Lovelace II',
      after: 'Please sign in again.',
    });
    // One before the sign-in, one for all calls, and one after the sign-out.
    expect(requests.filter((line) => line === 'GET /api/auth/token')).toHaveLength(3);
  }, 60_000);
});
