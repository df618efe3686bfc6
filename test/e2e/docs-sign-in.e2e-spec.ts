import { createHmac } from 'node:crypto';
import { jest } from '@jest/globals';
import type { Page } from 'playwright-core';
import {
  type Browser,
  describeInChromium,
  execute,
  openBrowser,
  openDocs,
  takeScreenshot,
} from '../support/browser.js';
import { type Stack, startStack } from '../support/stack.js';
import { type TestUser, signUp } from '../support/users.js';

/** The clock of Gatehouse. A test moves it so that a token expires without a wait. */
const realNow = Date.now.bind(Date);
let clockOffsetMs = 0;
jest.spyOn(Date, 'now').mockImplementation(() => realNow() + clockOffsetMs);

const MINUTE_MS = 60_000;
const SIZES = [
  { width: 1400, height: 900 },
  { width: 390, height: 844 },
];

/** An expression for the browser: its elements, fields, storages, cookies and address. */
const EVERYTHING_IN_THE_PAGE = `Promise.all([indexedDB.databases(), caches.keys()]).then((stored) =>
  [
    document.documentElement.outerHTML,
    ...[...document.querySelectorAll('input, textarea')].map(({ value }) => value),
    JSON.stringify([{ ...localStorage }, { ...sessionStorage }, stored]),
    document.cookie,
    location.href,
  ].join('\\n'))`;

describeInChromium('sign-in of Swagger UI', () => {
  let stack: Stack;
  let url: string;
  let admin: TestUser;

  beforeAll(async () => {
    stack = await startStack({ sid: true });
    ({ url } = stack.gatehouse);
    await restartBetterAuth();
    admin = await signUp(stack.auth, 'Grace Hopper');
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
  }, 120_000);

  afterAll(() => stack.end());

  /** `localhost` is another site than Better-Auth, so the browser sends no cookies from there. */
  const otherSite = () => url.replace('127.0.0.1', 'localhost');

  const restartBetterAuth = (changes: object = {}) =>
    stack.auth.restart({
      trustedOrigins: [url, otherSite()],
      expirationTime: '15m',
      twoFactor: true,
      migrate: true,
      rateLimit: false,
      ...changes,
    });

  const fillIn = async (page: Page, { email, password }: { email: string; password: string }) => {
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByLabel('Email').fill(email);
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Sign in' }).click();
  };

  const sessionsOf = async ({ id }: TestUser) => {
    const rows = await stack.database.sql('select 1 from session where "userId" = $1', [id]);
    return rows.length;
  };

  const waitForSignedIn = (page: Page) =>
    page.getByText('Signed in as Grace Hopper (admin)').waitFor();

  describe.each(SIZES)('on a screen $width pixels wide', (size) => {
    let browser: Browser;
    const credentials: string[] = [];
    let tokenRequests = 0;

    beforeAll(async () => {
      browser = await openBrowser(size);
      browser.page.on('response', (response) => {
        const { pathname } = new URL(response.url());
        if (pathname.endsWith('/token')) tokenRequests += 1;
        const keep = async () => {
          credentials.push(response.headers()['set-auth-token'] ?? '');
          if (!pathname.endsWith('/token')) return;
          const { token } = (await response.json()) as { token: string };
          credentials.push(token);
        };
        // A preflight request has no body.
        void keep().catch(() => undefined);
      });
    }, 60_000);
    afterAll(() => browser?.close());

    const shoot = (name: string) => takeScreenshot(browser.page, `sign-in-${size.width}-${name}`);

    it('lists users after email, password and one click', async () => {
      const { page } = browser;
      await openDocs(page, url);
      await shoot('1-opened');
      await page.getByRole('button', { name: 'Sign in' }).click();
      await shoot('2-form');
      await page.getByRole('button', { name: 'Cancel' }).click();
      await fillIn(page, admin);
      await waitForSignedIn(page);
      const { status, body } = await execute(page, '/api/v1/users');
      await shoot('3-users');
      expect([status, body]).toEqual([
        expect.stringContaining('200'),
        expect.stringContaining(admin.email),
      ]);
    }, 90_000);

    it('renews the token before it expires by the clock of the browser', async () => {
      const { page } = browser;
      const before = tokenRequests;
      await page.clock.setSystemTime(realNow() + 14.9 * MINUTE_MS);
      expect((await execute(page, '/api/v1/users')).status).toContain('200');
      expect(tokenRequests).toBe(before + 1);
      expect((await execute(page, '/api/v1/users')).status).toContain('200');
      expect(tokenRequests).toBe(before + 1);
    }, 90_000);

    it('finds the session after a reload', async () => {
      const { page } = browser;
      await page.reload();
      await waitForSignedIn(page);
      expect((await execute(page, '/api/v1/users')).status).toContain('200');
    }, 90_000);

    it('renews the token once after Gatehouse refused it as expired', async () => {
      const { page } = browser;
      await page.reload();
      await waitForSignedIn(page);
      await restartBetterAuth({ expirationTime: '1h' });
      const before = tokenRequests;
      clockOffsetMs = 20 * MINUTE_MS;
      try {
        expect((await execute(page, '/api/v1/users')).status).toContain('200');
        expect(tokenRequests).toBe(before + 1);
      } finally {
        clockOffsetMs = 0;
        await restartBetterAuth();
      }
      // The browser reports the refused request.
      const reported = browser.messages.splice(0);
      expect(reported).toEqual([expect.stringContaining('401 (Unauthorized)')]);
    }, 90_000);

    it('shows and stores neither the password nor a token', async () => {
      const { page, context } = browser;
      expect(new Set(credentials.filter(Boolean)).size).toBeGreaterThanOrEqual(4);
      const seen = await page.evaluate<string>(EVERYTHING_IN_THE_PAGE);
      expect(seen).toContain('Authorization: Bearer &lt;token&gt;');
      const cookies = await context.cookies(url);
      expect(cookies.map(({ httpOnly }) => httpOnly)).not.toContain(false);
      const secrets = [admin.password, ...credentials.filter(Boolean)];
      for (const secret of secrets) expect(seen).not.toContain(secret.slice(0, 60));
      expect(seen).not.toMatch(/eyJ[\w-]+\.eyJ/);
    }, 60_000);

    it('ends the session at Better-Auth, and removes the data of the user from the page', async () => {
      const { page } = browser;
      const before = await sessionsOf(admin);
      expect((await execute(page, '/api/v1/users')).status).toContain('200');
      await page.getByRole('button', { name: 'Sign out' }).click();
      await page.getByRole('button', { name: 'Sign in' }).waitFor();
      expect(await sessionsOf(admin)).toBe(before - 1);
      expect(await page.content()).not.toContain(admin.email);
      await openDocs(page, url);
      await page.getByRole('button', { name: 'Sign in' }).waitFor();
      await shoot('4-signed-out');
      expect(browser.messages).toEqual([]);
    }, 90_000);

    it('fits the width of the screen', async () => {
      const { page } = browser;
      await openDocs(page, url);
      await page.locator('.opblock-summary-control').first().click();
      await page.getByRole('button', { name: 'Execute' }).waitFor();
      await shoot('5-operation');
      const root = 'document.documentElement';
      const overflow = await page.evaluate(`${root}.scrollWidth - ${root}.clientWidth`);
      expect(overflow).toBe(0);
    }, 60_000);
  });

  describe('answers to mistakes and failures', () => {
    let browser: Browser;
    let user: TestUser;

    beforeAll(async () => {
      browser = await openBrowser({ width: 1400, height: 900 });
    }, 60_000);
    afterAll(() => browser?.close());
    beforeEach(async () => {
      user = await signUp(stack.auth, 'Ada Lovelace');
      await browser.context.clearCookies();
      await openDocs(browser.page, url);
    });

    const ban = (reason: string) =>
      stack.gatehouse.call(`/api/v1/users/${user.id}/ban`, {
        method: 'POST',
        token: admin.token,
        body: { reason },
      });
    const failure = () => browser.page.getByRole('alert');

    it.each([
      ['a wrong password', async () => ({}), { password: 'wrong password' }, /^Invalid email/],
      ['a banned user', () => ban('Spam'), {}, /^You are banned\. Reason: Spam$/],
      [
        'an origin that Better-Auth does not allow',
        () => restartBetterAuth({ trustedOrigins: [] }),
        {},
        /does not allow requests from this page\. Allow the origin http:.* trustedOrigins/,
      ],
      [
        'a Better-Auth that does not run',
        () => stack.auth.stop(),
        {},
        /does not respond\. .* BETTER_AUTH_URL/,
      ],
    ])(
      'explains %s, and forgets the password',
      async (name, prepare, changes, message) => {
        const { page } = browser;
        try {
          await prepare();
          await fillIn(page, { ...user, ...changes });
          await failure().filter({ hasText: message }).waitFor();
          await takeScreenshot(page, `sign-in-failed-${name.replaceAll(' ', '-')}`);
          expect(await page.getByLabel('Password').inputValue()).toBe('');
        } finally {
          await restartBetterAuth();
        }
      },
      90_000,
    );

    it('explains too many attempts', async () => {
      const { page } = browser;
      await restartBetterAuth({ rateLimit: true });
      try {
        await fillIn(page, { ...user, password: 'wrong password' });
        const tooMany = failure().filter({ hasText: /^Too many attempts\. Wait \d+ seconds/ });
        for (let attempts = 0; attempts < 20 && !(await tooMany.isVisible()); attempts += 1) {
          await page.getByLabel('Password').fill('wrong password');
          await page.getByRole('button', { name: 'Sign in' }).click();
          await page.locator('#password-form button:enabled[type=submit]').waitFor();
        }
        expect(await tooMany.isVisible()).toBe(true);
      } finally {
        await restartBetterAuth();
      }
    }, 90_000);

    it('signs in without cookies on another site, and keeps the session only in memory', async () => {
      const { page, context } = browser;
      await openDocs(page, otherSite());
      await fillIn(page, admin);
      await waitForSignedIn(page);
      expect((await execute(page, '/api/v1/users')).status).toContain('200');
      expect(await context.cookies(stack.auth.url)).toEqual([]);
      await openDocs(page, otherSite());
      await page.getByRole('button', { name: 'Sign in' }).waitFor();
    }, 90_000);

    it('stores no token that somebody pastes instead of signing in', async () => {
      const { page } = browser;
      await page.getByRole('button', { name: 'Authorize' }).click();
      await page.locator('.modal-ux input').fill(user.token);
      await page.locator('.modal-ux').getByRole('button', { name: 'Apply credentials' }).click();
      await page.locator('.modal-ux').getByRole('button', { name: 'Close' }).click();
      expect((await execute(page, '/api/v1/auth/me')).body).toContain(user.email);
      const stored = await page.evaluate(
        'JSON.stringify([{ ...localStorage }, { ...sessionStorage }])',
      );
      expect(stored).not.toContain(user.token.slice(0, 60));
    }, 90_000);

    it('says that the session has ended when an admin ended it', async () => {
      const { page } = browser;
      await fillIn(page, user);
      await page.getByText('Signed in as Ada Lovelace (user)').waitFor();
      const options = { method: 'DELETE', token: admin.token };
      await stack.gatehouse.call(`/api/v1/users/${user.id}/sessions`, options);
      expect(await execute(page, '/api/v1/auth/me')).toMatchObject({
        status: expect.stringContaining('401'),
      });
      await page.getByText('Your session has ended. Sign in again.').waitFor();
      await page.getByRole('button', { name: 'Sign in' }).waitFor();
    }, 90_000);

    it('does not act as another user who signed in in another tab', async () => {
      const { page, context } = browser;
      await fillIn(page, user);
      await page.getByText('Signed in as Ada Lovelace (user)').waitFor();
      const other = await context.newPage();
      await context.clearCookies();
      await openDocs(other, url);
      await fillIn(other, admin);
      await waitForSignedIn(other);
      await page.clock.setSystemTime(realNow() + 14.9 * MINUTE_MS);
      expect((await execute(page, '/api/v1/auth/me')).body).toContain('AUTH_MISSING_TOKEN');
      await page.getByText('Another user has signed in').waitFor();
      await other.close();
    }, 90_000);

    it('asks for the code of a second factor', async () => {
      const { page } = browser;
      const { totpURI } = await stack.auth.post<{ totpURI: string }>(
        '/two-factor/enable',
        { password: user.password },
        user.session,
      );
      await fillIn(page, user);
      await page.getByLabel('Code').fill('000000');
      await page.getByRole('button', { name: 'Verify' }).click();
      await failure().filter({ hasText: 'The code is wrong or has expired.' }).waitFor();
      await takeScreenshot(page, 'sign-in-code');
      await page.getByLabel('Code').fill(totp(totpURI));
      await page.getByRole('button', { name: 'Verify' }).click();
      await page.getByText('Signed in as Ada Lovelace (user)').waitFor();
      expect((await execute(page, '/api/v1/auth/me')).body).toContain(user.email);
    }, 90_000);
  });
});

/** RFC 6238 with the defaults of authenticator apps: six digits, 30 seconds, SHA-1. */
function totp(uri: string): string {
  const secret = new URL(uri).searchParams.get('secret') ?? '';
  const bits = Array.from(secret)
    .map((letter) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter))
    .map((value) => value.toString(2).padStart(5, '0'))
    .join('');
  const bytes = (bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(realNow() / 30_000)));
  const mac = createHmac('sha1', Buffer.from(bytes)).update(counter).digest();
  const offset = (mac.at(-1) ?? 0) & 0x0f;
  return String((mac.readUInt32BE(offset) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}
