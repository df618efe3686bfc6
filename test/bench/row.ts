/** A measured value and its limit. */
export interface Row {
  what: string;
  /** The value as text, with its unit. */
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
