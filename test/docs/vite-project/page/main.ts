import { createGatehouse } from '@gatehouse/client';
import { greet, rename } from '../../client.ts';

Object.assign(globalThis, { page: { createGatehouse, greet, rename } });
