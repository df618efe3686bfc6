import { register } from 'node:module';
import { HttpInstrumentation } from '@opentelemetry/instrumentation-http';
import { PgInstrumentation } from '@opentelemetry/instrumentation-pg';
import { NodeSDK } from '@opentelemetry/sdk-node';

// Gatehouse consists of ES modules, and this hook lets the instrumentations change what they import.
register('@opentelemetry/instrumentation/hook.mjs', import.meta.url);

// MikroORM writes values into its statements. They are personal data, so only the rest is exported.
const TEXTS = /E'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'/g;
const pg = new PgInstrumentation({
  requestHook: (span, { query }) => {
    span.setAttribute('db.query.text', query.text.replaceAll(TEXTS, "'?'"));
  },
});
new NodeSDK({ instrumentations: [new HttpInstrumentation(), pg] }).start();
