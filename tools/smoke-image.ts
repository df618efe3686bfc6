/**
 * Part of `npm run smoke`: builds the image with the first container engine that answers, and
 * checks what is in it. Without an engine, or without the base image, it prints one line and ends.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const IMAGE = 'gatehouse-smoke';
const BASE = /^ARG NODE_IMAGE=(.+)$/m.exec(readFileSync('Dockerfile', 'utf8'))?.[1] ?? '';

/** Podman and Buildah write the OCI format by default, which drops HEALTHCHECK. */
const DOCKER_FORMAT = ['--format', 'docker'];
const ENGINES = [
  { program: 'docker', format: [], inspect: ['image', 'inspect'], runs: true },
  { program: 'podman', format: DOCKER_FORMAT, inspect: ['image', 'inspect'], runs: true },
  { program: 'buildah', format: DOCKER_FORMAT, inspect: ['inspect', '--type=image'], runs: false },
];

const engine = ENGINES.find(({ program }) => run(program, ['info']).status === 0);
if (!engine) console.log('skipped: no container engine');
else if (!hasBaseImage(engine)) console.log(`skipped: ${engine.program} cannot pull ${BASE}`);
else smokeImage(engine);

function hasBaseImage({ program, inspect }: (typeof ENGINES)[number]): boolean {
  return [
    [...inspect, BASE],
    ['pull', BASE],
  ].some((words) => run(program, words).status === 0);
}

function smokeImage({ program, format, inspect, runs }: (typeof ENGINES)[number]): void {
  const build = run(program, ['build', ...format, '--tag', IMAGE, '.']);
  check(build.status === 0, `${program} builds the image`, build.output);
  const { output } = run(program, [...inspect, IMAGE]);
  check(/"User": "1000"/.test(output), 'the user of the image is 1000', output);
  check(output.includes('/health/live'), 'the image has a HEALTHCHECK', output);
  if (!runs) return;
  const empty = run(program, ['run', '--rm', '--read-only', '--network=none', IMAGE]);
  const refused = empty.status === 1 && empty.output.includes('DATABASE_URL');
  check(refused, 'the image refuses an empty environment', empty.output);
}

function run(program: string, words: string[]) {
  const { status, stdout, stderr } = spawnSync(program, words, {
    encoding: 'utf8',
    timeout: 600_000,
  });
  return { status, output: `${stdout}${stderr}` };
}

function check(holds: boolean, promise: string, output: string): void {
  if (!holds) {
    console.error(`failed: ${promise}\n${output.slice(-2000)}`);
    process.exit(1);
  }
  console.log(`ok  ${promise}`);
}
