import { EntityManager, type EntityRepository } from '@mikro-orm/postgresql';
import { InjectRepository } from '@mikro-orm/nestjs';
import { Injectable, NotFoundException } from '@nestjs/common';
import { requireOwnerOrAdmin } from '../../../src/access/owner-rule.js';
import type { Principal } from '../../../src/access/principal.js';
import { Project } from './project.entity.js';
import { type ProjectCreate, ProjectRead, type ProjectUpdate } from './project.dto.js';
import { projectProblem } from './project.problems.js';

@Injectable()
export class ProjectsService {
  constructor(
    @InjectRepository(Project) private readonly projects: EntityRepository<Project>,
    private readonly em: EntityManager,
  ) {}

  async list({ user }: Principal): Promise<ProjectRead[]> {
    const projects = await this.projects.find({ owner: user.id }, { orderBy: { name: 'asc' } });
    return projects.map((project) => ProjectRead.of(project));
  }

  async create({ user }: Principal, { name }: ProjectCreate): Promise<ProjectRead> {
    const project = this.projects.create({ name, owner: user.id });
    await this.em.persist(project).flush();
    return ProjectRead.of(project);
  }

  async update(principal: Principal, id: string, changes: ProjectUpdate): Promise<ProjectRead> {
    const project = await this.find(principal, id);
    if (project.archived && changes.archived !== false) throw projectProblem('PROJECT_ARCHIVED');
    this.projects.assign(project, changes);
    await this.em.flush();
    return ProjectRead.of(project);
  }

  async remove(principal: Principal, id: string): Promise<void> {
    await this.em.remove(await this.find(principal, id)).flush();
  }

  private async find(principal: Principal, id: string): Promise<Project> {
    const project = await this.projects.findOne(id);
    if (!project) throw new NotFoundException('The project does not exist.');
    requireOwnerOrAdmin(principal, project.owner.id);
    return project;
  }
}
