/** Waits, or rejects when the signal aborts. */
export async function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const waited = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  await unlessAborted(waited, signal).finally(() => clearTimeout(timer));
}

/** Returns the result of the work, or rejects when the signal aborts. The work continues. */
export function unlessAborted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(reasonOf(signal));
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    const done = () => signal.removeEventListener('abort', abort);
    work.then(resolve, reject).finally(done);
  });
}

/** Not every React Native has `reason`, `throwIfAborted` and `DOMException`. */
function reasonOf(signal: AbortSignal): unknown {
  return signal.reason ?? namedError('AbortError', 'Aborted');
}

export function namedError(name: string, message: string): Error {
  return Object.assign(new Error(message), { name });
}
