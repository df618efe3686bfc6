import { type TestUser, signUp } from '../support/users.js';
import {
  type Browser,
  describeInChromium,
  execute,
  openBrowser,
  openDocs,
  takeScreenshot,
} from '../support/browser.js';
import { type Stack, startStack } from '../support/stack.js';

describeInChromium('Swagger UI without a sign-in of its own', () => {
  let stack: Stack;
  let admin: TestUser;
  let browser: Browser;

  beforeAll(async () => {
    stack = await startStack({}, { DOCS_SIGN_IN: 'off' });
    admin = await signUp(stack.authWithSid, 'Grace Hopper');
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
    browser = await openBrowser({ width: 1280, height: 900 });
  }, 60_000);

  afterAll(async () => {
    await browser?.close();
    await stack.end();
  });

  const open = () => openDocs(browser.page, stack.gatehouse.url);

  const authorize = async (text: string) => {
    const { page } = browser;
    await page.getByRole('button', { name: 'Authorize' }).click();
    await page.locator('.modal-ux input').fill(text);
    await page.locator('.modal-ux').getByRole('button', { name: 'Apply credentials' }).click();
  };

  it('lists the routes in the order of daily work, and shows the 401 of a request without a token', async () => {
    const { page } = browser;
    await open();
    await takeScreenshot(page, '1-opened');
    expect(await page.locator('.opblock-tag').allTextContents()).toEqual(
      ['Users', 'Sessions', 'Audit', 'Accounts', 'Me', 'Health'].map((tag) =>
        expect.stringMatching(`^${tag}`),
      ),
    );
    const summaries = await page.locator('.opblock-summary-description').allTextContents();
    expect(summaries.slice(0, 4)).toEqual([
      'Find users',
      'Get a user',
      'Ban a user and end all their sessions',
      'Lift the ban of a user',
    ]);
    expect(summaries.length).toBeGreaterThanOrEqual(18);
    expect(await page.getByRole('button', { name: 'Sign in' }).isVisible()).toBe(false);
    expect(await execute(page, '/api/v1/users')).toMatchObject({
      status: expect.stringContaining('401'),
      body: expect.stringContaining('AUTH_MISSING_TOKEN'),
    });
    await takeScreenshot(page, '2-without-a-token');
  }, 90_000);

  it('authorizes with a token, lists users and events, and keeps the token when reopened', async () => {
    const { page } = browser;
    const ada = await signUp(stack.authWithSid);
    const ban = { method: 'POST', token: admin.token, body: { reason: 'Spam' } };
    await stack.gatehouse.call(`/api/v1/users/${ada.id}/ban`, ban);
    await open();
    await authorize('It is somewhere else');
    await page.locator('.modal-ux').getByText('This is not a token.').waitFor();
    await takeScreenshot(page, '3-authorize');
    await page.locator('.modal-ux input').fill(` Bearer "${admin.token}" `);
    await page.locator('.modal-ux').getByRole('button', { name: 'Apply credentials' }).click();
    await page.locator('.modal-ux').getByRole('button', { name: 'Close' }).click();
    for (const screenshot of ['4-authorized', '5-opened-again']) {
      const { status, body } = await execute(page, '/api/v1/users');
      await takeScreenshot(page, screenshot);
      expect(status).toContain('200');
      expect(body).toContain(admin.email);
      await open();
    }
    const { status, body } = await execute(page, '/api/v1/audit-events');
    await takeScreenshot(page, '6-events');
    expect(status).toContain('200');
    expect(body).toContain('Spam');
    expect(body).toContain(ada.email);
  }, 90_000);

  it('finds the token in what users paste, and names their mistake otherwise', async () => {
    const token = 'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2ln-_X';
    const correct = [
      token,
      `Bearer ${token}`,
      `  Authorization: bearer   ${token}\n`,
      `"${token}"`,
      `'${token}'`,
      JSON.stringify({ token }),
      JSON.stringify({ token }, null, 2),
      `${token.slice(0, 30)}\n${token.slice(30)}`,
    ];
    const mistakes = {
      '': 'Paste a token first.',
      '  \n': 'Paste a token first.',
      hello: 'This is not a token.',
      '{"token":null}': 'This is not a token.',
      eyJhbGciOiJFZERTQSJ9: 'This is only a part of a token.',
      Kq1cW9nNn3cJr0mH7yqD2vXo8sTfLbAe: 'This is the session token of Better-Auth',
      'Kq1cW9nNn3cJr0mH7yqD2vXo8sTfLbAe.b%2Fc%3D': 'This is the session token of Better-Auth',
    };
    const read = await browser.page.evaluate(
      async (texts) => {
        const path = '/api/v1/docs/pasted-token.js';
        const { readPastedToken } = (await import(path)) as {
          readPastedToken: (text: string) => object;
        };
        return texts.map(readPastedToken);
      },
      [...correct, ...Object.keys(mistakes)],
    );
    expect(read).toEqual([
      ...correct.map(() => ({ token })),
      ...Object.values(mistakes).map((text) => ({ mistake: expect.stringContaining(text) })),
    ]);
  });

  it('loads without browser errors and sends requests only to Gatehouse', () => {
    const { messages, hosts } = browser;
    // The browser reports the expected 401 of the first test.
    expect(messages.filter((message) => !message.includes('401 (Unauthorized)'))).toEqual([]);
    expect([...hosts]).toEqual([new URL(stack.gatehouse.url).host]);
  });
});
