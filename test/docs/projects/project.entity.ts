import { defineEntity, p } from '@mikro-orm/core';
import { User } from '../../../src/better-auth/user.entity.js';

const ProjectSchema = defineEntity({
  name: 'Project',
  properties: {
    id: p.uuid().primary().defaultRaw('gen_random_uuid()'),
    name: p.string().length(100),
    archived: p.boolean().default(false),
    createdAt: p.datetime().defaultRaw('now()'),
    // Better-Auth deletes users. Without a rule the database would refuse to delete an owner.
    owner: () => p.manyToOne(User).index().deleteRule('cascade'),
  },
});

export class Project extends ProjectSchema.class {}
ProjectSchema.setClass(Project);
