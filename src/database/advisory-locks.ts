/**
 * The advisory locks in PostgreSQL. All programs share them, so each purpose has a number of its
 * own. The numbers must be the same in every release.
 */
export const LOCKS = {
  migration: 7_426_283_451,
  administration: 7_426_283_452,
  housekeeping: 7_426_283_453,
  changeTable: 7_426_283_454,
} as const;
