/** One line of the table: a fault, and the figures that were measured in it. */
export interface Row {
  fault: string;
  result: 'ok' | 'FAILED' | 'skipped';
  /** What was answered while it lasted. */
  reads?: string;
  writes?: string;
  /** Milliseconds: the slowest answer, and the first 200 after its end. */
  slowest?: number;
  back?: number;
  acknowledged?: number;
  lost?: number;
  doubled?: number;
  unconfirmed?: number;
  seconds?: number;
}

const COLUMNS: [title: string, of: (row: Row) => string | number | undefined][] = [
  ['fault', ({ fault }) => fault],
  ['result', ({ result }) => result],
  ['slowest ms', ({ slowest }) => whole(slowest)],
  ['back ms', ({ back }) => whole(back)],
  ['acknowledged', ({ acknowledged }) => acknowledged],
  ['lost', ({ lost }) => lost],
  ['doubled', ({ doubled }) => doubled],
  ['unconfirmed', ({ unconfirmed }) => unconfirmed],
  ['s', ({ seconds }) => whole(seconds)],
  ['reads in it', ({ reads }) => reads],
  ['writes in it', ({ writes }) => writes],
];

export function table(rows: Row[]): string {
  const cells = [
    COLUMNS.map(([title]) => title),
    ...rows.map((row) => COLUMNS.map(([, of]) => String(of(row) ?? ''))),
  ];
  const widths = COLUMNS.map((_, at) => Math.max(...cells.map((line) => line[at]?.length ?? 0)));
  return cells
    .map((line) =>
      line
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function whole(value: number | undefined): number | undefined {
  return value === undefined ? undefined : Math.round(value);
}
