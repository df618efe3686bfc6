import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { format, resolveConfig } from 'prettier';
import { problemKinds } from '../../src/problems/problem.js';
import { extensions } from '../../src/extensions.js';
import { createDocument } from '../../src/openapi/document.js';
import { startApp } from '../support/test-app.js';
import { createDatabase } from '../support/database.js';

/** Compares a generated file with its source. `UPDATE_GENERATED=1` writes the file first. */
async function expectGenerated(path: string, text: string): Promise<void> {
  const expected = await format(text, { ...(await resolveConfig(path)), filepath: path });
  if (process.env['UPDATE_GENERATED']) writeFileSync(path, expected);
  expect(readFileSync(path, 'utf8')).toBe(expected);
}

it('lists every error code of the source in docs/errors.md', async () => {
  const rows = [...problemKinds()].map(
    ([code, { status, title, meaning }]) => `| \`${code}\` | ${status} | ${title} | ${meaning} |`,
  );
  await expectGenerated(
    'docs/errors.md',
    `# Errors

Every error is a problem as defined by RFC 9457, with the media type \`application/problem+json\`:
\`{ type, title, status, detail, instance, code, requestId }\`. Some codes add \`errors\`, \`missing\`, \`matched\`,
\`banReason\` or \`banExpires\`. Clients switch on \`code\`, which never changes. Titles and details may change. Quote
the \`requestId\` when you ask for help, because the log contains it.

\`UPDATE_GENERATED=1 npm test -- generated\` writes this page from \`src/problems/problem.ts\` and the problems of
\`src/extensions.ts\`.

| code | status | title | meaning |
| --- | --- | --- | --- |
${rows.join('\n')}
`,
  );
});

it('lists every variable of .env.example in docs/configuration.md', async () => {
  const groups = readFileSync('.env.example', 'utf8')
    .split(/^# --- /m)
    .slice(1);
  const sections = groups.map((group) => {
    const [title = '', ...lines] = group.trim().split('\n');
    return `## ${title}\n\n| variable | default | meaning |\n| --- | --- | --- |\n${tableRows(lines)}`;
  });
  await expectGenerated(
    'docs/configuration.md',
    `# Configuration

Gatehouse reads these environment variables, and in development also the file \`.env\`. It does not start with an invalid
value. The error message lists every invalid variable.

\`UPDATE_GENERATED=1 npm test -- generated\` writes this page from \`.env.example\`.

${sections.join('\n\n')}
`,
  );
});

/** Turns each variable and the comment above it into a row. A commented-out one has no default. */
function tableRows(lines: string[]): string {
  const rows: string[] = [];
  let meaning: string[] = [];
  for (const line of lines) {
    const [, example, name, value = ''] = /^(# )?([A-Z_]+)=(.*)$/.exec(line) ?? [];
    if (name === undefined) {
      meaning.push(line.replace(/^# ?/, ''));
      continue;
    }
    const shown = example || value === '' ? '–' : `\`${value}\``;
    rows.push(`| \`${name}\` | ${shown} | ${meaning.join(' ')} |`);
    meaning = [];
  }
  return rows.join('\n');
}

it('describes the current API in openapi.json', async () => {
  const database = await createDatabase();
  const gatehouse = await startApp(
    { DATABASE_URL: database.url, BETTER_AUTH_URL: 'http://127.0.0.1:9' },
    extensions,
  );
  try {
    await expectGenerated('openapi.json', JSON.stringify(createDocument(gatehouse.app)));
  } finally {
    await gatehouse.close();
    await database.drop();
  }
});

it('has types of openapi.json in the TypeScript client', async () => {
  const generator = 'node_modules/openapi-typescript/bin/cli.js';
  const types = execFileSync(process.execPath, [generator, 'openapi.json'], { encoding: 'utf8' });
  await expectGenerated('clients/typescript/src/schema.ts', types);
});
