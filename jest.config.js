// Who confuses local time and UTC shall see it: no test runs in London.
process.env.TZ = 'America/New_York';

/** @type {import('jest').Config} */
export default {
  testEnvironment: 'node',
  globalSetup: '<rootDir>/test/support/global-setup.ts',
  globalTeardown: '<rootDir>/test/support/global-teardown.ts',
  setupFiles: ['<rootDir>/test/support/preload.ts'],
  // PostgreSQL and the Better-Auth servers want a core, too.
  maxWorkers: 2,
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.e2e-spec.ts', '**/*.spec.ts'],
  // `TEST_PGBOUNCER=1 npm test` puts PgBouncer before every database. These are about the connection to
  // the server itself, and what it says.
  testPathIgnorePatterns: process.env.TEST_PGBOUNCER ? ['/test/e2e/(connection|doctor)'] : [],
  extensionsToTreatAsEsm: ['.ts'],
  // TypeScript's ESM style imports './x.js' where the file is './x.ts'.
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      {
        jsc: {
          target: 'es2024',
          parser: { syntax: 'typescript', decorators: true },
          transform: { legacyDecorator: true, decoratorMetadata: true },
        },
        module: { type: 'es6' },
      },
    ],
  },
  testTimeout: 30_000,
};
