/**
 * Preloaded into each program that the tests start, by `--import`. Replaces `src/extensions.ts` of
 * the build by an empty one, so that these tests also pass in a fork that lists its own.
 */
import { registerHooks } from 'node:module';

const EXTENSIONS = new URL('../../dist/src/extensions.js', import.meta.url).href;
const NO_EXTENSIONS = new URL('./no-extensions.ts', import.meta.url).href;

registerHooks({
  resolve: (specifier, context, nextResolve) => {
    const resolved = nextResolve(specifier, context);
    return resolved.url === EXTENSIONS ? nextResolve(NO_EXTENSIONS, context) : resolved;
  },
});
