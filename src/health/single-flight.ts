/**
 * Calls that arrive during a check share its result, so that visits to a public route cannot flood
 * the database. No result is cached, because it may be wrong a moment later.
 *
 * A call does not share a failure either, because that check began before the call: it checks
 * again. The first request after the database returns therefore reports it as up.
 */
export function singleFlight(check: () => Promise<void>): () => Promise<void> {
  let current: Promise<void> | undefined;
  return async () => {
    if (current && (await current.then(succeeded, failed))) return;
    current ??= check().finally(() => (current = undefined));
    await current;
  };
}

const succeeded = () => true;
const failed = () => false;
