import { Migration20261128100000_add_projects } from './add-projects.js';
import { Project } from './project.entity.js';
import { ProjectsModule } from './projects.module.js';
import type { Extensions } from '../../../src/extensions.js';

export const extensions: Extensions = {
  modules: [ProjectsModule],
  schema: 'app',
  entities: [Project],
  migrations: [Migration20261128100000_add_projects],
};
