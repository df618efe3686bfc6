import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { findProgram } from '../support/external-program.js';
import { SERVED_METRICS } from '../support/served-metrics.js';

interface Alert {
  alert: string;
  expr: string;
  for: string;
  labels: { severity: string };
  annotations: { summary: string };
}
interface RuleTest {
  alert_rule_test: { alertname: string; exp_alerts: object[] }[];
}
interface Panel {
  title: string;
  type: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string }[];
}

/** `up` is a metric of Prometheus itself. */
const METRICS: Record<string, string[]> = { ...SERVED_METRICS, up: [] };
/** Prometheus adds these labels to every metric. */
const TARGET_LABELS = ['job', 'namespace', 'instance'];

const FOLDER = 'deploy/observability';
const read = (file: string) => readFileSync(`${FOLDER}/${file}`, 'utf8');
const rules = parse(read('rules.yaml')) as { groups: { rules: Alert[] }[] };
const alerts = rules.groups.flatMap((group) => group.rules);
const tests = (parse(read('rules.test.yaml')) as { tests: RuleTest[] }).tests;
const { panels } = JSON.parse(read('dashboard.json')) as { panels: Panel[] };

const queries = [
  ...alerts.map(({ alert, expr }) => [alert, expr] as const),
  ...panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const)),
];

describe('queries of the alerts and the dashboard', () => {
  it.each(queries)('use only metrics and labels that exist: %s', (_name, query) => {
    const selectors = [...query.matchAll(/(\w+)\{([^}]*)\}/g)];
    expect(selectors.length).toBeGreaterThan(0);
    const used = selectors.map(([, name = '']) => name.replace(/_(bucket|count|sum)$/, ''));
    expect(Object.keys(METRICS)).toEqual(expect.arrayContaining(used));
    const allowed = [...TARGET_LABELS, ...used.flatMap((name) => METRICS[name] ?? [])];
    const selected = selectors.flatMap(([, , matchers = '']) =>
      [...matchers.matchAll(/(\w+)(?:=|!)/g)].map(([, label]) => label),
    );
    const grouped = [...query.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) =>
      list.split(', '),
    );
    expect(allowed).toEqual(expect.arrayContaining([...selected, ...grouped]));
  });

  // http_server_request_duration_seconds is a name of OpenTelemetry, so other programs use it.
  it.each(queries)('select only Gatehouse: %s', (_name, query) => {
    const selectors = query.match(/\w+\{/g);
    expect(query.match(/\w+\{job="gatehouse"/g)).toEqual(
      selectors?.map((name) => `${name}job="gatehouse"`),
    );
  });

  it('read every metric of Gatehouse at least once', () => {
    const text = queries.map(([, query]) => query).join('\n');
    expect(Object.keys(METRICS).filter((name) => !text.includes(name))).toEqual([]);
  });
});

describe('alerts', () => {
  it.each(alerts)(
    'have a test in which they fire and one in which they do not: $alert',
    ({ alert }) => {
      const cases = tests
        .flatMap((test) => test.alert_rule_test)
        .filter(({ alertname }) => alertname === alert);
      expect(new Set(cases.map(({ exp_alerts }) => exp_alerts.length > 0))).toEqual(
        new Set([true, false]),
      );
    },
  );

  it.each(alerts)('have a row in docs/operations.md: $alert', ({ alert, labels }) => {
    const row = new RegExp(
      `^\\| \`${alert}\` +\\| ${labels.severity} +\\| [^|]+ \\| [^|]+ \\|$`,
      'm',
    );
    expect(readFileSync('docs/operations.md', 'utf8')).toMatch(row);
  });
});

describe('dashboard', () => {
  it('has no panels that overlap', () => {
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from(
        { length: w * h },
        (_, index) => `${x + (index % w)},${y + Math.floor(index / w)}`,
      ),
    );
    expect(new Set(cells).size).toBe(cells.length);
    expect(Math.max(...panels.map(({ gridPos: { x, w } }) => x + w))).toBe(24);
  });
});

const promtool = findProgram('promtool');
if (!promtool) {
  process.stdout.write(
    'promtool not found: the alerts are not evaluated (apt-get install prometheus).\n',
  );
}

(promtool ? describe : describe.skip)('promtool', () => {
  const run = (...words: string[]) =>
    execFileSync(promtool ?? '', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

  it('accepts the syntax of the rules', () => {
    expect(run('check', 'rules', `${FOLDER}/rules.yaml`)).toContain(`${alerts.length} rules found`);
  });

  it('fires each alert when its condition holds, and at no other time', () => {
    expect(run('test', 'rules', `${FOLDER}/rules.test.yaml`)).toContain('SUCCESS');
  });
});
