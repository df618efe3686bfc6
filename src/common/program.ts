import { EnvironmentFault } from '../config/environment.js';
import { DatabaseUnusable, explainQueryFault } from '../database/connection.js';

/**
 * Runs a program of ours and gives a fault that its user can mend the form it deserves: the sentence,
 * no stack trace, exit code 1.
 */
export async function runProgram(program: () => Promise<void>): Promise<void> {
  try {
    await program();
  } catch (error) {
    process.exitCode = 1;
    const sentence = explain(error);
    if (sentence === undefined) throw error;
    process.stderr.write(`${sentence}\n`);
  }
}

function explain(error: unknown): string | undefined {
  if (error instanceof EnvironmentFault || error instanceof DatabaseUnusable) return error.message;
  return explainQueryFault(error);
}
