import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

/** Debian's Chromium, or the program that `CHROMIUM` names. */
const chromium = [process.env['CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(
  (path) => path && existsSync(path),
);
if (!chromium) {
  process.stdout.write(
    'Chromium is not installed: Swagger UI is not tested in a browser (CHROMIUM=path).\n',
  );
}

const withChromium = chromium ? describe : describe.skip;

withChromium('Swagger UI in a browser', () => {
  let stack: Stack;
  let admin: TestUser;
  let profile: string;
  let browser: BrowserContext;
  let page: Page;
  const messages: string[] = [];
  const hosts = new Set<string>();

  beforeAll(async () => {
    stack = await startStack();
    admin = await signUp(stack.authWithSid, 'Grace Hopper');
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
    profile = mkdtempSync(join(tmpdir(), 'gatehouse-chromium-'));
    const { chromium: launcher } = await import('playwright-core');
    browser = await launcher.launchPersistentContext(profile, {
      executablePath: chromium ?? '',
      headless: true,
      viewport: { width: 1280, height: 900 },
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    });
    page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) messages.push(message.text());
    });
    page.on('pageerror', (error) => messages.push(error.message));
    page.on('request', (request) => {
      if (!request.url().startsWith('data:')) hosts.add(new URL(request.url()).host);
    });
  }, 60_000);

  afterAll(async () => {
    await browser?.close();
    await stack.end();
    rmSync(profile, { recursive: true, force: true });
  });

  /** Opens an empty page first. Otherwise the browser would reopen the route in the address. */
  const open = async () => {
    await page.goto('about:blank');
    await page.goto(`${stack.gatehouse.url}/api/v1/docs`);
    await page.locator('.opblock').first().waitFor();
  };

  const takeScreenshot = async (name: string) => {
    const folder = process.env['SCREENSHOTS'];
    if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
  };

  /** Executes a route in the page. Resolves with the status and the body that the page shows. */
  const execute = async (path: string) => {
    const route = page.locator('.opblock-get', { has: page.locator(`[data-path="${path}"]`) });
    await route.locator('.opblock-summary-control').first().click();
    await route.getByRole('button', { name: 'Try it out' }).click();
    await route.getByRole('button', { name: 'Execute' }).click();
    const response = route.locator('.live-responses-table .response');
    await response.waitFor();
    await response.evaluate((element) => element.scrollIntoView());
    return {
      status: (await response.locator('.response-col_status').textContent())?.trim(),
      body: (await response.locator('.highlight-code').first().textContent()) ?? '',
    };
  };

  it('lists the routes and shows the 401 of a request without a token', async () => {
    await open();
    await takeScreenshot('1-opened');
    expect(await page.locator('.opblock').count()).toBeGreaterThanOrEqual(18);
    expect(await execute('/api/v1/users')).toMatchObject({
      status: expect.stringContaining('401'),
      body: expect.stringContaining('AUTH_MISSING_TOKEN'),
    });
    await takeScreenshot('2-without-a-token');
  }, 90_000);

  it('authorizes with a token, lists users and events, and keeps the token when reopened', async () => {
    const ada = await signUp(stack.authWithSid);
    const ban = { method: 'POST', token: admin.token, body: { reason: 'Spam' } };
    await stack.gatehouse.call(`/api/v1/users/${ada.id}/ban`, ban);
    await open();
    await page.getByRole('button', { name: 'Authorize' }).click();
    await page.locator('.modal-ux input').fill(admin.token);
    await takeScreenshot('3-authorize');
    await page.locator('.modal-ux').getByRole('button', { name: 'Apply credentials' }).click();
    await page.locator('.modal-ux').getByRole('button', { name: 'Close' }).click();
    for (const screenshot of ['4-authorized', '5-opened-again']) {
      const { status, body } = await execute('/api/v1/users');
      await takeScreenshot(screenshot);
      expect(status).toContain('200');
      expect(body).toContain(admin.email);
      await open();
    }
    const { status, body } = await execute('/api/v1/audit-events');
    await takeScreenshot('6-events');
    expect(status).toContain('200');
    expect(body).toContain('Spam');
  }, 90_000);

  it('loads without browser errors and sends requests only to Gatehouse', () => {
    // The browser reports the expected 401 of the first test.
    expect(messages.filter((message) => !message.includes('401 (Unauthorized)'))).toEqual([]);
    expect([...hosts]).toEqual([new URL(stack.gatehouse.url).host]);
  });
});
