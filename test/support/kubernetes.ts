import { execFileSync, type StdioOptions } from 'node:child_process';
import { appendFileSync, cpSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import ts from 'typescript';
import { parseAllDocuments } from 'yaml';
import { findProgram } from './external-program.ts';

export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  // oxlint-disable-next-line typescript/no-explicit-any -- typeErrors() checks the rest
  [field: string]: any;
}

const FOLDER = 'deploy/kubernetes';

export const kubectl = findProgram('kubectl');

/**
 * Returns the manifests of the example overlay with every component. Without kubectl, these are the
 * documents of the files, before Kustomize changes and adds to them.
 */
export function readManifests(): Manifest[] {
  return kubectl ? render(kubectl) : sourceDocuments();
}

function render(program: string): Manifest[] {
  const folder = mkdtempSync(join(tmpdir(), 'gatehouse-kubernetes-'));
  try {
    cpSync(FOLDER, folder, { recursive: true });
    const overlay = join(folder, 'overlays/example');
    const components = globSync('components/*', { cwd: folder }).map(
      (path) => `  - ../../${path}\n`,
    );
    appendFileSync(join(overlay, 'kustomization.yaml'), `components:\n${components.join('')}`);
    // A warning of kubectl is not part of the documents.
    const stdio: StdioOptions = ['ignore', 'pipe', 'pipe'];
    return parse(execFileSync(program, ['kustomize', overlay], { encoding: 'utf8', stdio }));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function sourceDocuments(): Manifest[] {
  return globSync(`${FOLDER}/**/*.yaml`)
    .filter((path) => !/kustomization\.yaml$|\.patch\.yaml$/.test(path))
    .flatMap((path) => parse(readFileSync(path, 'utf8')));
}

/** YAML that has a duplicate key or another error is refused. */
export function parse(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => {
    if (document.errors.length > 0) throw document.errors[0];
    return document.toJS() as Manifest;
  });
}

/**
 * Compiles each manifest as an object literal of its Kubernetes type, and returns the errors of
 * each. The compiler finds unknown fields, also nested ones. JSON schemas of Kubernetes allow them.
 */
export function typeErrors(manifests: Manifest[]): string[][] {
  const sources = new Map(
    manifests.map((manifest, index) => [resolve(`test/manifest-${index}.ts`), literal(manifest)]),
  );
  const { config } = ts.readConfigFile('tsconfig.json', (path) => ts.sys.readFile(path));
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, process.cwd());
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile } = host;
  host.fileExists = (path) => sources.has(path) || fileExists(path);
  host.readFile = (path) => sources.get(path) ?? readFile(path);
  const program = ts.createProgram([...sources.keys()], { ...options, types: [] }, host);
  return [...sources.keys()].map((path) =>
    program
      .getSemanticDiagnostics(program.getSourceFile(path))
      .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n')),
  );
}

function literal(manifest: Manifest): string {
  const { apiVersion, kind } = manifest;
  const isOperator = apiVersion.startsWith('monitoring.coreos.com/');
  const name = isOperator ? '@kubernetes-models/prometheus-operator' : 'kubernetes-models';
  return `import type { I${kind} } from '${name}/${apiVersion}';
export const manifest: I${kind} = ${JSON.stringify(manifest)};`;
}
