import { createParamDecorator } from '@nestjs/common';
import type { Request } from 'express';
import { clientAddress } from '../http/client-address.js';
import { requestOf } from '../http/request-of.js';
import { principalOf } from './decorators.js';
import type { Principal } from './principal.js';

/** The principal of a change, with the request details that the audit log records. */
export interface Actor {
  readonly principal: Principal;
  readonly requestId: string;
  readonly clientRequestId: string | null;
  readonly ip: string | null;
  readonly userAgent: string | null;
}

export const CurrentActor = createParamDecorator((_: unknown, context): Actor => {
  const principal = principalOf(context);
  const request = requestOf(context) as Request;
  return {
    principal,
    requestId: request.requestId,
    clientRequestId: request.clientRequestId ?? null,
    ip: clientAddress(request),
    userAgent: request.headers['user-agent']?.slice(0, 512) ?? null,
  };
});
