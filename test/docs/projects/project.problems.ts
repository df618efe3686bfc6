import { registerProblems } from '../../../src/problems/problem.js';

export const projectProblem = registerProblems({
  PROJECT_ARCHIVED: {
    status: 409,
    title: 'The project is archived',
    meaning: 'An archived project cannot be changed. Restore it first.',
  },
});
