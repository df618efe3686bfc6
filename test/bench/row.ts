/** One thing that was measured, beside what is wanted of it. */
export interface Row {
  what: string;
  /** As people read it, with its unit. */
  figure: string;
  ratio: number;
  wanted: string;
  met: boolean;
}

export function printRows(rows: Row[]): void {
  console.table(
    rows.map(({ what, figure, ratio, wanted, met }) => ({
      what,
      figure,
      ratio: Number(ratio.toFixed(2)),
      wanted,
      met: met ? 'yes' : 'NO',
    })),
  );
}
