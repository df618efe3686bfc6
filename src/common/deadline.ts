import { AsyncLocalStorage } from 'node:async_hooks';

/**
 * When the request began that this work is for. Only requests that change something are told: what they
 * commit must not come after the deadline of their answer, and others pay nothing for it.
 */
export const requestBegan = new AsyncLocalStorage<number>();
