import { feedCut } from './change-feed.ts';
import { idleConnections, largeHeader, slowBodies, slowHeaders } from './clients.ts';
import { clockMoved } from './clock.ts';
import { frozen, killed, restarted } from './database-away.ts';
import {
  auditLocked,
  locked,
  noConnections,
  poolUsedUp,
  readOnly,
  reset,
} from './database-hard.ts';
import type { Fault } from './fault.ts';
import { flooded, issuerDown, issuerStalls, keysRotate } from './issuer.ts';
import { poolerFrozen, poolerKilled } from './pooler.ts';
import {
  bansWhileFeedIsCut,
  bulkDeletion,
  crashWithPrepared,
  longTransaction,
  pausedService,
} from './recorded-changes.ts';
import { replicaKilled, rollingRestart } from './replicas.ts';

/** In the order in which they run. */
export const FAULTS: Fault[] = [
  killed,
  frozen,
  restarted,
  reset,
  poolUsedUp,
  noConnections,
  locked,
  auditLocked,
  readOnly,
  poolerKilled,
  poolerFrozen,
  feedCut,
  bansWhileFeedIsCut,
  pausedService,
  longTransaction,
  bulkDeletion,
  crashWithPrepared,
  issuerDown,
  issuerStalls,
  keysRotate,
  flooded,
  replicaKilled,
  rollingRestart,
  slowHeaders,
  slowBodies,
  idleConnections,
  largeHeader,
  clockMoved,
];
