import { createGatehouse, orThrow, ProblemError } from '@gatehouse/client';

Object.assign(globalThis, { client: { createGatehouse, orThrow, ProblemError } });
