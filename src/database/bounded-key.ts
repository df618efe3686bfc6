/**
 * A text as an index holds it: its first 200 characters, 800 bytes at most. A B-tree entry has room for
 * 2,704 bytes, and Better-Auth accepts names of any length.
 *
 * The migration `bounded-indexes` builds the indexes and the user list asks by them: keep both the same.
 */
export function boundedKey(text: string): string {
  return `left(${text}, ${MAX_KEY_CHARACTERS})`;
}

export const MAX_KEY_CHARACTERS = 200;
