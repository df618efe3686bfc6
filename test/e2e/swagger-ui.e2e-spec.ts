import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

/** Debian's, or the one that `CHROMIUM` names. */
const chromium = [process.env['CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(
  (path) => path && existsSync(path),
);
if (!chromium) {
  process.stdout.write('No Chromium here: Swagger UI is not tried in a browser (CHROMIUM=path).\n');
}

const withChromium = chromium ? describe : describe.skip;

withChromium('Swagger UI, in a browser', () => {
  let stack: Stack;
  let admin: TestUser;
  let profile: string;
  let browser: BrowserContext;
  let page: Page;
  const faults: string[] = [];
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
      if (['error', 'warning'].includes(message.type())) faults.push(message.text());
    });
    page.on('pageerror', (error) => faults.push(error.message));
    page.on('request', (request) => {
      if (!request.url().startsWith('data:')) hosts.add(new URL(request.url()).host);
    });
  }, 60_000);

  afterAll(async () => {
    await browser?.close();
    await stack.end();
    rmSync(profile, { recursive: true, force: true });
  });

  /** Anew: the address of an open route would open it again. */
  const open = async () => {
    await page.goto('about:blank');
    await page.goto(`${stack.gatehouse.url}/api/v1/docs`);
    await page.locator('.opblock').first().waitFor();
  };

  const shoot = async (name: string) => {
    const folder = process.env['SCREENSHOTS'];
    if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
  };

  /** Presses what there is to press, and resolves with the status and the body that the page shows. */
  const execute = async (path: string) => {
    const route = page.locator('.opblock-get', { has: page.locator(`[data-path="${path}"]`) });
    await route.locator('.opblock-summary-control').first().click();
    await route.getByRole('button', { name: 'Try it out' }).click();
    await route.getByRole('button', { name: 'Execute' }).click();
    const answer = route.locator('.live-responses-table .response');
    await answer.waitFor();
    await answer.evaluate((element) => element.scrollIntoView());
    return {
      status: (await answer.locator('.response-col_status').textContent())?.trim(),
      body: (await answer.locator('.highlight-code').first().textContent()) ?? '',
    };
  };

  it('lists the routes, and is told 401 without a token', async () => {
    await open();
    await shoot('1-opened');
    expect(await page.locator('.opblock').count()).toBeGreaterThanOrEqual(18);
    expect(await execute('/api/v1/users')).toMatchObject({
      status: expect.stringContaining('401'),
      body: expect.stringContaining('AUTH_MISSING_TOKEN'),
    });
    await shoot('2-without-a-token');
  }, 90_000);

  it('authorizes with a token, lists users and events, and still does when opened again', async () => {
    const ada = await signUp(stack.authWithSid);
    const ban = { method: 'POST', token: admin.token, body: { reason: 'Spam' } };
    await stack.gatehouse.call(`/api/v1/users/${ada.id}/ban`, ban);
    await open();
    await page.getByRole('button', { name: 'Authorize' }).click();
    await page.locator('.modal-ux input').fill(admin.token);
    await shoot('3-authorize');
    await page.locator('.modal-ux').getByRole('button', { name: 'Apply credentials' }).click();
    await page.locator('.modal-ux').getByRole('button', { name: 'Close' }).click();
    for (const when of ['4-authorized', '5-opened-again']) {
      const { status, body } = await execute('/api/v1/users');
      await shoot(when);
      expect(status).toContain('200');
      expect(body).toContain(admin.email);
      await open();
    }
    const { status, body } = await execute('/api/v1/audit-events');
    await shoot('6-events');
    expect(status).toContain('200');
    expect(body).toContain('Spam');
  }, 90_000);

  it('has nothing to complain about, and asks nobody else', () => {
    // That it says so of the 401 which the first test asked for is the browser's way.
    expect(faults.filter((fault) => !fault.includes('401 (Unauthorized)'))).toEqual([]);
    expect([...hosts]).toEqual([new URL(stack.gatehouse.url).host]);
  });
});
