import { Controller, Get, Query, Req, type StreamableFile } from '@nestjs/common';
import {
  ApiExtraModels,
  ApiOkResponse,
  ApiOperation,
  ApiTags,
  getSchemaPath,
} from '@nestjs/swagger';
import type { Request } from 'express';
import { CurrentPrincipal, RequirePermissions } from '../access/decorators.js';
import type { Principal } from '../access/principal.js';
import { AuditListService } from './audit-list.service.js';
import { AuditEventList, AuditQuery } from './audit.dto.js';

const NDJSON = 'application/x-ndjson';

@Controller('audit-events')
@ApiTags('Audit')
export class AuditController {
  constructor(private readonly events: AuditListService) {}

  @Get()
  @RequirePermissions({ audit: ['list'] }, { [NDJSON]: { audit: ['export'] } })
  @ApiOperation({
    operationId: 'listAuditEvents',
    summary: 'List audit events, newest first',
    description:
      'Each change and its event are one transaction. The API cannot change or delete events. Operators can delete events that are older than 30 days. With `Accept: application/x-ndjson`, the response streams every matching event, one JSON line each.',
  })
  @ApiOkResponse({
    description: 'A page, or every matching event with `Accept: application/x-ndjson`',
    content: {
      'application/json': { schema: { $ref: getSchemaPath(AuditEventList) } },
      'application/x-ndjson': {
        schema: { type: 'string', description: 'One line for each event, as in `items` of a page' },
      },
    },
  })
  @ApiExtraModels(AuditEventList)
  list(
    @CurrentPrincipal() principal: Principal,
    @Query() query: AuditQuery,
    @Req() request: Request,
  ): Promise<AuditEventList | StreamableFile> {
    return request.accepts(['json', NDJSON]) === NDJSON
      ? this.events.export(principal, query, request)
      : this.events.list(query);
  }
}
