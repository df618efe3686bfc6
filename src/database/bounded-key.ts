import { leftOf, MAX_CHARACTERS } from './bounded-text.js';

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

/**
 * The text that a search reads: the beginnings of the e-mail address and of the name, on two lines.
 * One index on both texts is smaller than two indexes, and a search reads it once.
 *
 * The migration `large-list-indexes` and the condition of the search must use the same expression.
 */
export function searchedText(email: string, name: string): string {
  const lines = [leftOf(email, MAX_CHARACTERS.email), leftOf(name, MAX_CHARACTERS.name)];
  return `(${lines.map((line) => `coalesce(${line}, '')`).join(' || chr(10) || ')})`;
}

/**
 * The condition of the index on roles. That index holds whole texts, because PostgreSQL answers a
 * count from an index alone only if it holds the column itself. A query uses the index only if it
 * has exactly this condition.
 */
export function isShortRole(role: string): string {
  return `(${role} is null or octet_length(${role}) <= ${MAX_ROLE_BYTES})`;
}

/** True for the users that the index on roles does not hold. */
export function isLongRole(role: string): string {
  return `octet_length(${role}) > ${MAX_ROLE_BYTES}`;
}

const MAX_ROLE_BYTES = 2000;
