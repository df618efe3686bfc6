import { Body, Controller, Get, HttpCode, Post, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { type Actor, CurrentActor } from '../access/actor.js';
import { CurrentPrincipal, RequirePermissions } from '../access/decorators.js';
import type { Principal } from '../access/principal.js';
import { AnswerWithin } from '../http/deadline.decorators.js';
import { Problems } from '../problems/problems.decorator.js';
import { SessionPage, SessionQuery } from './session-list.dto.js';
import { SessionListService } from './session-list.service.js';
import { SessionRevocation, SessionRevocationResult } from './session-revocation.dto.js';
import {
  REVOCATION_DEADLINE_MS,
  REVOKE,
  SessionRevocationService,
} from './session-revocation.service.js';

@Controller('sessions')
@ApiTags('Sessions')
export class AllSessionsController {
  constructor(
    private readonly sessions: SessionListService,
    private readonly revocations: SessionRevocationService,
  ) {}

  @Get()
  @RequirePermissions({ session: ['list'] })
  @ApiOperation({
    operationId: 'listAllSessions',
    summary: 'Find sessions of all users',
    description:
      'All filters must match. Use `cursor` to read many pages: each page costs the same. Use `page` to jump to a page. A large total is an estimate unless you send `total=exact`: `totalIsEstimate` marks it.',
  })
  @ApiOkResponse({ type: SessionPage })
  list(
    @CurrentPrincipal() principal: Principal,
    @Query() query: SessionQuery,
  ): Promise<SessionPage> {
    return this.sessions.list(principal, query);
  }

  @Post('revocations')
  @RequirePermissions(REVOKE)
  @HttpCode(200)
  @AnswerWithin(REVOCATION_DEADLINE_MS)
  @Problems('COUNT_MISMATCH')
  @ApiOperation({
    operationId: 'revokeSessionsByFilter',
    summary: 'End the sessions that match a filter',
    description:
      'The filter is the same as in the list. Send `dryRun` first, then `expected` with the `matched` of its response. Your own session continues unless you send `includeOwn`. The sessions of users who have a permission that you lack continue. One call ends at most 10,000 sessions, in transactions of at most 1,000. While `more` is true, send the request again. Sessions in which an affected user impersonates others do not end. Each affected user gets an audit event with your reason.',
  })
  @ApiOkResponse({ type: SessionRevocationResult })
  revoke(
    @CurrentActor() actor: Actor,
    @Body() revocation: SessionRevocation,
  ): Promise<SessionRevocationResult> {
    return this.revocations.revoke(actor, revocation);
  }
}
