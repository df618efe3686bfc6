export { createGatehouse, type Gatehouse, type GatehouseOptions } from './gatehouse.js';
export { type ClientProblem, orThrow, type Problem, ProblemError } from './problem.js';
export type { components, operations, paths } from './schema.js';
