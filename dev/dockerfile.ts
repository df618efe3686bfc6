import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';

/** What an image would hold, laid out in folders: no Docker is needed to see it work. */
export interface Image {
  /** The folder that stands for `/`. */
  root: string;
  workdir: string;
  env: Record<string, string>;
  user: string | undefined;
  command: string[];
  healthcheck: string[];
}

export interface BuildPlace {
  /** The folder that the build is sent, as `docker build` would send it. */
  context: string;
  /** Where the stages are laid out. */
  scratch: string;
  /** What every command sees: a PATH with the base image's Node in front, a home of its own. */
  env: NodeJS.ProcessEnv;
  tell(line: string): void;
}

interface Instruction {
  name: string;
  flags: Record<string, string>;
  text: string;
}

interface Stage {
  base: string;
  instructions: Instruction[];
}

/**
 * Does what a Dockerfile says, instruction by instruction. It knows those that ours uses; any other is
 * an error, so that the image and what is tried here cannot drift apart.
 */
export class DockerfileBuild {
  private readonly stages: Map<string, Stage>;
  private readonly built = new Map<string, Image>();
  private readonly place: BuildPlace;

  constructor(path: string, place: BuildPlace) {
    this.stages = readStages(readFileSync(path, 'utf8'));
    this.place = place;
  }

  build(name: string): Image {
    const done = this.built.get(name);
    if (done) return done;
    const stage = this.stages.get(name);
    if (!stage) throw new Error(`The Dockerfile has no stage "${name}".`);

    const image = this.startFrom(stage.base, name);
    for (const instruction of stage.instructions) this.carryOut(instruction, image);
    this.built.set(name, image);
    return image;
  }

  private startFrom(base: string, name: string): Image {
    const root = join(this.place.scratch, name);
    if (!this.stages.has(base)) {
      mkdirSync(root, { recursive: true });
      return { root, workdir: '/', env: {}, user: undefined, command: [], healthcheck: [] };
    }
    const parent = this.build(base);
    // Hard links: a stage adds and removes files of the one before it, and changes none.
    execFileSync('cp', ['-al', parent.root, root]);
    return { ...parent, root, env: { ...parent.env } };
  }

  private carryOut({ name, flags, text }: Instruction, image: Image): void {
    switch (name) {
      case 'WORKDIR':
        image.workdir = text;
        mkdirSync(join(image.root, text), { recursive: true });
        return;
      case 'COPY':
        return this.copy(text, flags['from'], image);
      case 'RUN':
        return this.run(text, image);
      case 'ENV':
        for (const [, key = '', value = ''] of text.matchAll(/(\w+)=(\S+)/g))
          image.env[key] = value;
        return;
      case 'USER':
        image.user = text;
        return;
      case 'CMD':
        image.command = JSON.parse(text) as string[];
        return;
      case 'HEALTHCHECK':
        image.healthcheck = JSON.parse(text.replace(/^CMD\s+/, '')) as string[];
        return;
      case 'LABEL':
      case 'EXPOSE':
      case 'STOPSIGNAL':
        return;
      default:
        throw new Error(`The Dockerfile says ${name}, which this build does not know how to do.`);
    }
  }

  private copy(text: string, from: string | undefined, image: Image): void {
    const paths = text.split(/\s+/);
    const target = join(image.root, image.workdir, paths.pop() ?? '');
    const source = from === undefined ? this.place.context : this.build(from).root;
    for (const path of paths) {
      const origin = join(source, path);
      if (!existsSync(origin))
        throw new Error(`COPY ${path}: there is no such file in the build context.`);
      // As Docker has it: a folder's content goes into the target, a file keeps its name.
      const goal = statSync(origin).isDirectory() ? target : join(target, basename(path));
      cpSync(origin, goal, { recursive: true, verbatimSymlinks: true });
    }
  }

  private run(command: string, image: Image): void {
    const began = performance.now();
    const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
      cwd: join(image.root, image.workdir),
      env: { ...this.place.env, ...image.env },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 600_000,
    });
    if (status !== 0) throw new Error(`RUN ${command} failed:\n${stdout}\n${stderr}`);
    this.place.tell(`RUN ${command}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
  }
}

/** Takes the right to write away, as a read-only root file system does. */
export function makeReadOnly(folder: string): void {
  spawnSync('chmod', ['-R', 'a-w,a+rX', folder]);
  chmodSync(folder, 0o555);
}

function readStages(dockerfile: string): Map<string, Stage> {
  const stages = new Map<string, Stage>();
  let stage: Stage | undefined;
  for (const line of logicalLines(dockerfile)) {
    const [, name = '', rest = ''] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
    if (name === 'FROM') {
      const [base = '', , alias = base] = rest.split(/\s+/);
      stage = { base, instructions: [] };
      stages.set(alias, stage);
      continue;
    }
    const flags = Object.fromEntries(
      [...rest.matchAll(/--([\w-]+)=(\S+)/g)].map(([, key, value]) => [key, value]),
    ) as Record<string, string>;
    const text = rest.replace(/^(--[\w-]+=\S+\s+)+/, '').trim();
    stage?.instructions.push({ name, flags, text });
  }
  return stages;
}

function logicalLines(dockerfile: string): string[] {
  return dockerfile
    .split('\n')
    .filter((line) => !line.trim().startsWith('#') && line.trim() !== '')
    .join('\n')
    .replaceAll(/\\\n\s*/g, ' ')
    .split('\n');
}
