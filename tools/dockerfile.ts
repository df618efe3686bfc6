import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';

/** What an image would hold, laid out in a folder: no Docker is needed to see it work. */
export interface Image {
  /** The folder that stands for `/`. */
  root: string;
  workdir: string;
  env: Record<string, string>;
  /** A number; undefined is root. */
  user: number | undefined;
  exposed: number[];
  labels: Record<string, string>;
  stopSignal: NodeJS.Signals;
  command: string[];
  healthcheck: string[];
}

export interface Instruction {
  name: string;
  flags: Record<string, string>;
  text: string;
}

export interface Stage {
  name: string;
  /** An image of a registry, or a stage above. */
  base: string;
  instructions: Instruction[];
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

/**
 * Does what a Dockerfile says, instruction by instruction. It knows those that ours uses, in the form in
 * which ours uses them; anything else is an error, so that the image and what is tried here cannot
 * drift apart.
 */
export class DockerfileBuild {
  private readonly stages: Stage[];
  private readonly place: BuildPlace;
  private readonly built = new Map<string, Image>();

  constructor(dockerfile: string, place: BuildPlace) {
    this.stages = readDockerfile(dockerfile);
    this.place = place;
  }

  /** The stage of that name; without one the last, as `docker build` has it. */
  build(name = this.stages.at(-1)?.name): Image {
    const stage = this.stages.find((one) => one.name === name);
    if (!stage) throw new Error(`The Dockerfile has no stage "${name}".`);
    const done = this.built.get(stage.name);
    if (done) return done;

    const image = this.startFrom(stage);
    for (const instruction of stage.instructions) this.carryOut(instruction, image);
    this.built.set(stage.name, image);
    return image;
  }

  private startFrom({ name, base, instructions }: Stage): Image {
    const root = join(this.place.scratch, name);
    if (!this.stages.some((stage) => stage.name === base)) {
      requireOurNode(base);
      mkdirSync(root, { recursive: true });
      return baseImage(root);
    }
    const parent = this.build(base);
    // A stage that only says how to run it shares the files.
    const changesFiles = instructions.some((one) => WRITING.has(one.name));
    if (changesFiles) this.timed(`FROM ${base}`, () => copyTree(parent.root, root));
    return { ...parent, root: changesFiles ? root : parent.root, env: { ...parent.env } };
  }

  private carryOut({ name, flags, text }: Instruction, image: Image): void {
    switch (name) {
      case 'WORKDIR':
        if (!text.startsWith('/')) throw notKnown(`WORKDIR ${text}`);
        image.workdir = text;
        mkdirSync(join(image.root, text), { recursive: true });
        return;
      case 'COPY': {
        const { from, chmod } = flags;
        const source = from === undefined ? this.place.context : this.build(from).root;
        return this.timed(`COPY ${text}`, () => copy(text, source, chmod, image));
      }
      case 'RUN':
        if (image.user !== undefined) throw notKnown('RUN after USER');
        return this.timed(`RUN ${text}`, () => this.run(text, image));
      case 'ENV':
        Object.assign(image.env, pairsOf(text));
        return;
      case 'LABEL':
        image.labels = pairsOf(text);
        return;
      case 'USER':
        if (!/^\d+$/.test(text)) throw notKnown(`USER ${text}`);
        image.user = Number(text);
        return;
      case 'EXPOSE':
        image.exposed = text.split(' ').map(Number);
        return;
      case 'STOPSIGNAL':
        image.stopSignal = text as NodeJS.Signals;
        return;
      case 'CMD':
        image.command = commandOf(text);
        return;
      case 'HEALTHCHECK':
        image.healthcheck = commandOf(text.replace(/^CMD /, ''));
        return;
      default:
        throw notKnown(name);
    }
  }

  private run(command: string, image: Image): void {
    const { status, stdout, stderr } = spawnSync('sh', ['-c', `umask 022; ${command}`], {
      cwd: join(image.root, image.workdir),
      env: { ...this.place.env, ...image.env },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: RUN_TIMEOUT_MS,
      maxBuffer: 64 * 1024 * 1024,
    });
    if (status !== 0) throw new Error(`RUN ${command} failed:\n${stdout}\n${stderr}`);
    if (/allow-?scripts/i.test(stderr)) throw new Error(`RUN ${command} warns:\n${stderr}`);
  }

  private timed(what: string, work: () => void): void {
    const began = performance.now();
    work();
    this.place.tell(`${what}  (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  }
}

const RUN_TIMEOUT_MS = 600_000;
const WRITING = new Set(['WORKDIR', 'COPY', 'RUN']);

function baseImage(root: string): Image {
  return {
    root,
    workdir: '/',
    env: {},
    user: undefined,
    exposed: [],
    labels: {},
    stopSignal: 'SIGTERM',
    command: [],
    healthcheck: [],
  };
}

/** The stages of a Dockerfile, in their order. */
export function readDockerfile(dockerfile: string): Stage[] {
  const stages: Stage[] = [];
  for (const { name, flags, text } of instructionsOf(dockerfile)) {
    if (name === 'FROM') {
      const [, base, alias] = /^(\S+) AS (\S+)$/.exec(text) ?? [];
      if (!base || !alias) throw notKnown(`FROM ${text}`);
      stages.push({ name: alias, base, instructions: [] });
      continue;
    }
    const stage = stages.at(-1);
    if (!stage) throw notKnown(`${name} above the first FROM`);
    stage.instructions.push({ name, flags, text });
  }
  return stages;
}

const KNOWN_FLAGS: Record<string, string[]> = {
  COPY: ['from', 'chmod'],
  HEALTHCHECK: ['interval', 'timeout', 'start-period', 'retries'],
};

function instructionsOf(dockerfile: string): Instruction[] {
  const lines = dockerfile
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.trim().startsWith('#'))
    .join('\n')
    .replaceAll(/\\\n/g, ' ')
    .split('\n');
  return lines.map((line) => {
    const [, name = '', flagText = '', text = ''] = INSTRUCTION.exec(line.trim()) ?? [];
    if (!name) throw notKnown(line);
    const flags: Record<string, string> = {};
    for (const [, flag = '', value = ''] of flagText.matchAll(/--([\w-]+)(?:=(\S+))?/g)) {
      if (!KNOWN_FLAGS[name]?.includes(flag)) throw notKnown(`${name} --${flag}`);
      flags[flag] = value;
    }
    const isCommand = ['RUN', 'CMD', 'HEALTHCHECK'].includes(name);
    // Docker would put a variable in here; in a command the shell or the program does.
    if (!isCommand && text.includes('$')) throw notKnown(`a variable in ${name}`);
    return { name, flags, text: isCommand ? text : text.replaceAll(/\s+/g, ' ') };
  });
}

const INSTRUCTION = /^([A-Z]+)\s+((?:--\S+\s+)*)(.+)$/;

function pairsOf(text: string): Record<string, string> {
  const pairs = text.match(/[\w.]+=(?:"[^"\\]*"|[^\s"\\]+)/g) ?? [];
  if (pairs.join(' ') !== text) throw notKnown(text);
  return Object.fromEntries(
    pairs.map((pair) => {
      const [name = '', ...value] = pair.split('=');
      return [name, value.join('=').replaceAll('"', '')];
    }),
  );
}

function commandOf(text: string): string[] {
  if (!text.startsWith('[')) throw notKnown(`the shell form "${text}"`);
  return JSON.parse(text) as string[];
}

// The Node that runs this stands in for the one of the base image.
function requireOurNode(base: string): void {
  const [, major] = /^node:(\d+)-slim$/.exec(base) ?? [];
  if (!major) throw notKnown(`FROM ${base}`);
  if (process.versions.node.split('.', 1)[0] !== major) {
    throw new Error(`The Dockerfile builds on Node ${major}, and this is ${process.version}.`);
  }
}

function notKnown(what: string): Error {
  return new Error(
    `The Dockerfile says ${what}, which tools/dockerfile.ts does not know how to do.`,
  );
}

function copy(text: string, source: string, chmod: string | undefined, image: Image): void {
  const paths = text.split(' ');
  const target = join(image.root, image.workdir, paths.pop() ?? '');
  mkdirSync(target, { recursive: true });
  for (const path of paths) {
    const origin = join(source, path);
    if (!existsSync(origin)) throw new Error(`COPY ${path}: there is no such file.`);
    // As Docker has it: a folder's content goes into the target, a file keeps its name.
    const names = statSync(origin).isDirectory() ? readdirSync(origin) : [''];
    for (const name of names) {
      const copied = join(target, name || basename(path));
      copyTree(join(origin, name), copied);
      if (chmod) execFileSync('chmod', ['-R', chmod, copied]);
    }
  }
}

function copyTree(from: string, to: string): void {
  cpSync(from, to, { recursive: true, verbatimSymlinks: true });
}

/** Of these paths, those that `docker build` would be sent: the last pattern that matches decides. */
export function withoutIgnored(paths: string[], dockerignore: string): string[] {
  const rules = dockerignore
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => ({ keeps: line.startsWith('!'), pattern: patternOf(line.replace(/^!/, '')) }));
  return paths.filter((path) => {
    const parts = path.split('/');
    // What matches a folder matches all that is in it.
    const folders = parts.map((_, index) => parts.slice(0, index + 1).join('/'));
    const verdict = rules.findLast(({ pattern }) => folders.some((folder) => pattern.test(folder)));
    return verdict?.keeps ?? true;
  });
}

// Unlike a shell's, these stars match a name that begins with a dot.
function patternOf(glob: string): RegExp {
  if (/[?[\]\\]/.test(glob))
    throw new Error(`.dockerignore says ${glob}: only stars are known here.`);
  const source = glob
    .replaceAll('.', '\\.')
    .replaceAll(/\*\*\/|\*/g, (stars) => (stars === '*' ? '[^/]*' : '(?:.*/)?'));
  return new RegExp(`^${source}$`);
}
