import { DatabaseUnusable } from '../database/connection.js';
import { EnvironmentFault } from '../config/environment.js';

/**
 * Runs a program of ours and gives a fault that its user can mend the form it deserves: the sentence,
 * no stack trace, exit code 1.
 */
export async function runProgram(program: () => Promise<void>): Promise<void> {
  try {
    await program();
  } catch (error) {
    process.exitCode = 1;
    if (error instanceof EnvironmentFault || error instanceof DatabaseUnusable) {
      process.stderr.write(`${error.message}\n`);
      return;
    }
    throw error;
  }
}
