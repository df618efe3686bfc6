/**
 * The SQL expression that the indexes hold: the first 200 characters of a text, at most 800 bytes.
 * A B-tree entry has room for 2,704 bytes, and Better-Auth accepts names of any length.
 *
 * The migration `bounded-indexes` and the queries of the user list must use the same expression.
 */
export function boundedKey(text: string): string {
  return `left(${text}, ${MAX_KEY_CHARACTERS})`;
}

export const MAX_KEY_CHARACTERS = 200;
