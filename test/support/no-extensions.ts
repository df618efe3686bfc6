import type { Extensions } from '../../src/extensions.js';

/** What `src/extensions.ts` contains in a project without extensions. */
export const extensions: Extensions = { modules: [], schema: 'app', entities: [], migrations: [] };
