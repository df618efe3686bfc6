import { AsyncLocalStorage } from 'node:async_hooks';

/**
 * When the time of the answer began that this work is for, which is when its request was there whole. Only
 * requests that change something are told: what they commit must not come after the deadline of their
 * answer, and others pay nothing for it.
 */
export const responseDeadline = new AsyncLocalStorage<number>();
