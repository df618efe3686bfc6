// A confusion of local time and UTC must fail a test, so the tests do not run in UTC.
process.env.TZ = 'America/New_York';

/** @type {import('jest').Config} */
export default {
  testEnvironment: 'node',
  globalSetup: '<rootDir>/test/support/global-setup.ts',
  globalTeardown: '<rootDir>/test/support/global-teardown.ts',
  setupFiles: ['<rootDir>/test/support/preload.ts'],
  // PostgreSQL and the Better-Auth servers need CPU time, too.
  maxWorkers: 2,
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.e2e-spec.ts', '**/*.spec.ts'],
  // `TEST_PGBOUNCER=1 npm test` puts PgBouncer before every database. The ignored tests check
  // direct connections to the server and its messages.
  testPathIgnorePatterns: process.env.TEST_PGBOUNCER ? ['/test/e2e/(connection|doctor)'] : [],
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: {
    // The application has no extensions, also in a fork. A test imports them by another path, and
    // passes them. `test/support/without-extensions.ts` does the same for programs of the build.
    '^(\\.\\.|\\./src)/extensions\\.js$': '<rootDir>/test/support/no-extensions.ts',
    '^@gatehouse/client$': '<rootDir>/clients/typescript/src/index.ts',
    // TypeScript's ESM style imports './x.js' where the file is './x.ts'.
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
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
