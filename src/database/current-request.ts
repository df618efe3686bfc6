import { AsyncLocalStorage } from 'node:async_hooks';
import type { Request } from 'express';

/**
 * The request that the code is handling, for code without access to it. Only requests that can
 * write have it: their transaction must not commit after the response deadline, and their body has
 * its own limits. Reads skip the cost.
 */
export const currentRequest = new AsyncLocalStorage<Request>();
