import { Controller, Delete, Get, Param, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiParam, ApiTags } from '@nestjs/swagger';
import { type Actor, CurrentActor } from '../access/actor.js';
import { SelfOrPermissions } from '../access/decorators.js';
import { ApiUserId, EXAMPLE_SESSION_ID } from '../openapi/parameters.js';
import { Problems } from '../problems/problems.decorator.js';
import { RevocationScope, SessionList, SuccessResponse } from './session.dto.js';
import { SessionsService } from './sessions.service.js';

@Controller('users/:id/sessions')
@ApiTags('Sessions')
@ApiUserId()
@Problems('USER_NOT_FOUND')
export class SessionsController {
  constructor(private readonly sessions: SessionsService) {}

  @Get()
  @SelfOrPermissions({ session: ['list'] })
  @ApiOperation({
    operationId: 'listSessions',
    summary: 'List the sessions of a user',
    description:
      'Lists the sessions that have not expired, newest first. `current` marks the session that the token of this request names.',
  })
  @ApiOkResponse({ type: SessionList })
  list(@CurrentActor() actor: Actor, @Param('id') id: string): Promise<SessionList> {
    return this.sessions.list(actor, id);
  }

  @Delete()
  @SelfOrPermissions({ session: ['revoke'] })
  @Problems('ROLE_ESCALATION')
  @ApiOperation({
    operationId: 'revokeSessions',
    summary: 'End all sessions of a user',
    description:
      'With `except=current`, the session of this request continues. The sessions in which the user impersonates others always end. `residual` is the latest time at which a token without a session id could still be accepted.',
  })
  @ApiOkResponse({ type: SuccessResponse })
  revokeAll(
    @CurrentActor() actor: Actor,
    @Param('id') id: string,
    @Query() { except }: RevocationScope,
  ): Promise<SuccessResponse> {
    return this.sessions.revokeAll(actor, id, except);
  }

  @Delete(':sessionId')
  @SelfOrPermissions({ session: ['revoke'] })
  @Problems('SESSION_NOT_FOUND', 'ROLE_ESCALATION')
  @ApiOperation({
    operationId: 'revokeSession',
    summary: 'End one session',
    description:
      'The response is `SESSION_NOT_FOUND` for a session of another user and for one that has already ended.',
  })
  @ApiParam({
    name: 'sessionId',
    description: 'The id of a session, not its token',
    schema: { type: 'string', maxLength: 255, example: EXAMPLE_SESSION_ID },
  })
  @ApiOkResponse({ type: SuccessResponse })
  revoke(
    @CurrentActor() actor: Actor,
    @Param('id') id: string,
    @Param('sessionId') sessionId: string,
  ): Promise<SuccessResponse> {
    return this.sessions.revoke(actor, id, sessionId);
  }
}
