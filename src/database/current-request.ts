import { AsyncLocalStorage } from 'node:async_hooks';
import type { Request } from 'express';

/**
 * The request that the code is handling, for code without access to it. Only requests that can
 * write have it: their transaction must not commit after the response deadline, and their body has
 * its own limits. Reads skip the cost.
 */
export const currentRequest = new AsyncLocalStorage<Request>();

/** The documented limit is 2500. The margin covers the sweep, a busy process and the network. */
export const RESPONSE_DEADLINE_MS = 2200;
