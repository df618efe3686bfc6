import { AsyncLocalStorage } from 'node:async_hooks';

/**
 * The time (`performance.now()`) at which the whole request had arrived. Only requests that can
 * write have it: their transaction must not commit after the response deadline. Reads skip the
 * cost.
 */
export const requestReceivedAt = new AsyncLocalStorage<number>();
