import { Controller, Delete, Get, Param, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { type Actor, CurrentActor } from '../access/actor.js';
import { SelfOrAdmin } from '../access/decorators.js';
import { Problems } from '../problems/problems.decorator.js';
import { RevocationScope, SessionList, SuccessResponse } from './session.dto.js';
import { SessionsService } from './sessions.service.js';

@Controller('users/:id/sessions')
@ApiTags('Sessions')
@SelfOrAdmin()
@Problems('NOT_FOUND')
export class SessionsController {
  constructor(private readonly sessions: SessionsService) {}

  @Get()
  @ApiOperation({ operationId: 'listSessions', summary: 'Where a user is signed in' })
  @ApiOkResponse({ type: SessionList })
  list(@CurrentActor() by: Actor, @Param('id') id: string): Promise<SessionList> {
    return this.sessions.list(by, id);
  }

  @Delete()
  @ApiOperation({ operationId: 'revokeSessions', summary: 'Sign a user out everywhere' })
  @ApiOkResponse({ type: SuccessResponse })
  revokeAll(
    @CurrentActor() by: Actor,
    @Param('id') id: string,
    @Query() { except }: RevocationScope,
  ): Promise<SuccessResponse> {
    return this.sessions.revokeAll(by, id, except);
  }

  @Delete(':sessionId')
  @ApiOperation({ operationId: 'revokeSession', summary: 'End one session' })
  @ApiOkResponse({ type: SuccessResponse })
  revoke(
    @CurrentActor() by: Actor,
    @Param('id') id: string,
    @Param('sessionId') sessionId: string,
  ): Promise<SuccessResponse> {
    return this.sessions.revoke(by, id, sessionId);
  }
}
