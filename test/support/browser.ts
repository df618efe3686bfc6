import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BrowserContext, Locator, Page } from 'playwright-core';

/** Debian's Chromium, or the program that `CHROMIUM` names. */
const chromium = [process.env['CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(
  (path) => path && existsSync(path),
);

/** `describe`, which skips its tests and says so where no Chromium is installed. */
export function describeInChromium(topic: string, tests: () => void): void {
  if (!chromium) {
    process.stdout.write(`Chromium not found: "${topic}" is not tested (set CHROMIUM=path).\n`);
  }
  (chromium ? describe : describe.skip)(topic, tests);
}

/** A browser with a fresh profile, and what its page did. */
export interface Browser {
  context: BrowserContext;
  page: Page;
  /** Errors and warnings of the console, and exceptions. */
  messages: string[];
  /** Hosts that the page sent requests to. */
  hosts: Set<string>;
  close(): Promise<void>;
}

export async function openBrowser(size: { width: number; height: number }): Promise<Browser> {
  const profile = mkdtempSync(join(tmpdir(), 'gatehouse-chromium-'));
  const { chromium: launcher } = await import('playwright-core');
  const context = await launcher.launchPersistentContext(profile, {
    executablePath: chromium ?? '',
    headless: true,
    viewport: size,
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
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const messages: string[] = [];
  const hosts = new Set<string>();
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) messages.push(message.text());
  });
  page.on('pageerror', (error) => messages.push(error.message));
  page.on('request', (request) => {
    if (!request.url().startsWith('data:')) hosts.add(new URL(request.url()).host);
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { context, page, messages, hosts, close };
}

/** Writes a picture of the page into the folder that `SCREENSHOTS` names. */
export async function takeScreenshot(page: Page, name: string): Promise<void> {
  const folder = process.env['SCREENSHOTS'];
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
}

/** Opens an empty page first. Otherwise the browser would reopen the route in the address. */
export async function openDocs(page: Page, gatehouseUrl: string): Promise<void> {
  await page.goto('about:blank');
  await page.goto(`${gatehouseUrl}/api/v1/docs`);
  await page.locator('.opblock').first().waitFor();
}

/** Executes a `GET` route in Swagger UI. Resolves with the status and the body that it shows. */
export async function execute(page: Page, path: string) {
  const route = operation(page, path);
  const executeButton = route.getByRole('button', { name: 'Execute' });
  if (!(await executeButton.isVisible())) {
    await route.locator('.opblock-summary-control').first().click();
  }
  const response = route.locator('.live-responses-table .response');
  const clear = route.getByRole('button', { name: 'Clear' });
  // The response of an earlier click must not be taken for this one.
  if (await clear.isVisible()) await clear.click();
  await response.waitFor({ state: 'detached' });
  await executeButton.click();
  await response.waitFor();
  await response.evaluate((element) => element.scrollIntoView());
  return {
    status: (await response.locator('.response-col_status').textContent())?.trim(),
    body: (await response.locator('.highlight-code').first().textContent()) ?? '',
  };
}

export function operation(page: Page, path: string): Locator {
  return page.locator('.opblock-get', { has: page.locator(`[data-path="${path}"]`) });
}
