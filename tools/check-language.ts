import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import ts from 'typescript';

/**
 * Checks the language of comments, documents and commit subjects. It finds long sentences, private
 * words, wide comments and malformed subjects. `CONTRIBUTING.md` explains the rules.
 */
const MAX_SENTENCE_WORDS = 25;
const MAX_COMMENT_COLUMNS = 100;
const MAX_SUBJECT_LENGTH = 72;

/** Every commit after this one follows the rules for subjects. */
const LAST_UNCHECKED_COMMIT = 'f16d5a5';

const SUBJECT =
  /^(feat|fix|docs|test|refactor|perf|build|ci|chore|style)(\([a-z0-9-]+\))?!?: [^;]+$/;

/** The generator neither wraps comments nor is its text ours. The descriptions are in `src`. */
const GENERATED_TYPES = 'clients/typescript/src/schema.ts';

/** Names and phrases that have a usual word of the trade. */
const PRIVATE_WORDS = [
  'Standing',
  'UnitOfWork',
  'InFlight',
  'LineBudgets?',
  'EnvironmentFault',
  'DatabaseUnusable',
  'CannotListen',
  'NotAdmitted',
  'TokenRefused',
  'Remembering',
  'PrincipalStore',
  'QueryGuard',
  'REMEMBERED_\\w+',
  'MOST_\\w+',
  'isHearing',
  'vouch(?:es|ed)?(?:For)?',
  'witness(?:es|For)?',
  'challenged',
  'bornFor',
  'demandsOf',
  'nobodys',
  'overtaken',
  '[Ww]hoever',
  '[Ww]homever',
  '[Hh]ears',
  '[Aa]new',
];
const PRIVATE_WORD = new RegExp(`(?<![\\w-])(?:${PRIVATE_WORDS.join('|')})(?![\\w-])`, 'g');

/** Separates passages inside one comment. */
const PARAGRAPH = '¶';

interface Finding {
  file: string;
  line: number;
  message: string;
}

/** A run of prose, and the line at which it begins. */
interface Passage {
  line: number;
  text: string;
}

const files = git('ls-files', '-co', '--exclude-standard').filter(
  (file) => /\.(ts|js|md)$/.test(file) && file !== GENERATED_TYPES,
);
const findings = [...files.flatMap(checkFile), ...checkCommits()];

for (const { file, line, message } of findings) {
  process.stdout.write(`${file}:${line} ${message}\n`);
}
if (findings.length > 0) {
  process.stdout.write(`${findings.length} findings\n`);
  process.exitCode = 1;
}

function checkFile(file: string): Finding[] {
  // This file names the words that it refuses.
  if (file === 'tools/check-language.ts') return [];
  const source = readFileSync(file, 'utf8');
  const passages = file.endsWith('.md') ? markdownPassages(source) : commentPassages(source);
  return [
    ...passages.flatMap((passage) => longSentences(file, passage)),
    // The list of changes names what has been renamed.
    ...(file === 'CHANGELOG.md' ? [] : privateWords(file, source)),
    ...(file.endsWith('.ts') ? wideComments(file, source) : []),
  ];
}

function longSentences(file: string, { line, text }: Passage): Finding[] {
  return sentencesOf(text)
    .map((sentence) => ({ sentence, words: sentence.split(/\s+/).filter(isWord).length }))
    .filter(({ words }) => words > MAX_SENTENCE_WORDS)
    .map(({ sentence, words }) => ({
      file,
      line,
      message: `${words} words: ${sentence.slice(0, 60)}…`,
    }));
}

/** Code, the addresses of links and bold type are not prose. */
function sentencesOf(text: string): string[] {
  return text
    .replaceAll(/`[^`]*`/g, 'code')
    .replaceAll('**', '')
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .split(/(?<=[.!?:])\s+/);
}

function isWord(text: string): boolean {
  return /[A-Za-z0-9]/.test(text);
}

function privateWords(file: string, source: string): Finding[] {
  return source.split('\n').flatMap((text, index) =>
    [...text.matchAll(PRIVATE_WORD)].map(([word]) => ({
      file,
      line: index + 1,
      message: `"${word}" has a usual word`,
    })),
  );
}

function wideComments(file: string, source: string): Finding[] {
  return source.split('\n').flatMap((text, index) => {
    const isWide = text.length > MAX_COMMENT_COLUMNS && /^\s*(\/\/|\/?\*)/.test(text);
    const hasLongLink = /https?:\/\/\S{40}/.test(text);
    if (!isWide || hasLongLink) return [];
    return [{ file, line: index + 1, message: `a comment of ${text.length} columns` }];
  });
}

/** Paragraphs. Tables, lists, headings and code have rules of their own. */
function markdownPassages(source: string): Passage[] {
  const passages: Passage[] = [];
  let open: Passage | undefined;
  let isCode = false;
  for (const [index, text] of source.split('\n').entries()) {
    if (/^\s*(```|~~~)/.test(text)) isCode = !isCode;
    const isProse = !isCode && /^[^\s|#>`~<-]/.test(text) && !/^(\*|\d+\.)\s/.test(text);
    if (!isProse) {
      open = undefined;
      continue;
    }
    if (open) open.text += ` ${text}`;
    else passages.push((open = { line: index + 1, text }));
  }
  return passages;
}

/** Comments of TypeScript. Line comments that follow one another are one passage. */
function commentPassages(source: string): Passage[] {
  const passages: Passage[] = [];
  let lastLine = Number.NEGATIVE_INFINITY;
  for (const { pos, end } of commentRanges(source)) {
    const comment = source.slice(pos, end);
    const line = source.slice(0, pos).split('\n').length;
    const text = textOf(comment);
    const previous = passages.at(-1);
    const continues = comment.startsWith('//') && line === lastLine + 1;
    if (continues && previous) previous.text += ` ${text}`;
    else if (!/^(oxlint|prettier|@ts-)/.test(text)) passages.push({ line, text });
    lastLine = line + comment.split('\n').length - 1;
  }
  return passages.flatMap(({ line, text }) =>
    text.split(PARAGRAPH).map((part) => ({ line, text: part })),
  );
}

/** An empty line or a list item begins a passage of its own. */
function textOf(comment: string): string {
  return comment
    .replaceAll(/^\/\*+|\*+\/$/g, '')
    .split('\n')
    .map((text) => text.replace(/^\s*(\/\/|\*)\s?/, ''))
    .map((text) => (/^\s*(?:$|[-*]\s|\d+\.\s)/.test(text) ? `${PARAGRAPH} ${text}` : text))
    .join(' ')
    .replaceAll(/\s+/g, ' ')
    .trim();
}

function commentRanges(source: string): ts.CommentRange[] {
  const file = ts.createSourceFile('file.ts', source, ts.ScriptTarget.Latest, true);
  const ranges = new Map<number, ts.CommentRange>();
  const visit = (node: ts.Node): void => {
    const found = [
      ...(ts.getLeadingCommentRanges(source, node.getFullStart()) ?? []),
      ...(ts.getTrailingCommentRanges(source, node.getEnd()) ?? []),
    ];
    for (const range of found) ranges.set(range.pos, range);
    for (const child of node.getChildren(file)) visit(child);
  };
  visit(file);
  return [...ranges.values()].toSorted((a, b) => a.pos - b.pos);
}

function checkCommits(): Finding[] {
  return commitSubjects()
    .filter((subject) => subject.length > MAX_SUBJECT_LENGTH || !SUBJECT.test(subject))
    .map((subject) => ({ file: 'commit', line: 0, message: subject }));
}

/** A copy without this history, such as a downloaded archive, has no subjects to check. */
function commitSubjects(): string[] {
  try {
    return git('log', '--no-merges', '--format=%s', `${LAST_UNCHECKED_COMMIT}..HEAD`);
  } catch {
    return [];
  }
}

function git(...words: string[]): string[] {
  return execFileSync('git', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    .split('\n')
    .filter((line) => line !== '');
}
