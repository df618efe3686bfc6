import { Body, Controller, Delete, Get, HttpCode, Param, Patch, Post } from '@nestjs/common';
import {
  ApiCreatedResponse,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiTags,
} from '@nestjs/swagger';
import { CurrentPrincipal } from '../../../src/access/decorators.js';
import type { Principal } from '../../../src/access/principal.js';
import { Problems } from '../../../src/problems/problems.decorator.js';
import { ProjectCreate, ProjectRead, ProjectUpdate } from './project.dto.js';
import { ProjectsService } from './projects.service.js';

@Controller('projects')
@ApiTags('Projects')
export class ProjectsController {
  constructor(private readonly projects: ProjectsService) {}

  @Get()
  @ApiOperation({ summary: 'List your projects', description: 'Sorted by name.' })
  @ApiOkResponse({ type: [ProjectRead] })
  list(@CurrentPrincipal() principal: Principal) {
    return this.projects.list(principal);
  }

  @Post()
  @ApiOperation({ summary: 'Create a project', description: 'You become its owner.' })
  @ApiCreatedResponse({ type: ProjectRead })
  create(@CurrentPrincipal() principal: Principal, @Body() body: ProjectCreate) {
    return this.projects.create(principal, body);
  }

  @Patch(':projectId')
  @ApiOperation({ summary: 'Change a project', description: 'For the owner and for admins.' })
  @ApiOkResponse({ type: ProjectRead })
  @Problems('NOT_FOUND', 'AUTH_FORBIDDEN', 'PROJECT_ARCHIVED')
  update(
    @CurrentPrincipal() principal: Principal,
    @Param('projectId') id: string,
    @Body() changes: ProjectUpdate,
  ) {
    return this.projects.update(principal, id, changes);
  }

  @Delete(':projectId')
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a project', description: 'For the owner and for admins.' })
  @ApiNoContentResponse()
  @Problems('NOT_FOUND', 'AUTH_FORBIDDEN')
  remove(@CurrentPrincipal() principal: Principal, @Param('projectId') id: string) {
    return this.projects.remove(principal, id);
  }
}
