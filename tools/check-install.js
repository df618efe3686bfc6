/** Runs before the build in `npm start`. Plain JavaScript, because any Node version may run it. */
import { existsSync } from 'node:fs';

if (!existsSync('node_modules/.package-lock.json')) {
  console.error('Run npm ci first.');
  process.exit(1);
}
