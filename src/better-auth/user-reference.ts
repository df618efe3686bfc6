import type { EntityManager } from '@mikro-orm/core';
import { leftOf, MAX_CHARACTERS } from '../database/bounded-text.js';
import { User } from './user.entity.js';

/** The name and the email address of a user, for lists that show more than an id. */
export interface UserReference {
  id: string;
  name: string;
  email: string;
}

/**
 * A subquery that returns a `UserReference` as JSON for an id that another table stores as text. It
 * returns null if there is no such user.
 */
export function userReferenceSql(em: Pick<EntityManager, 'getMetadata'>, idText: string): string {
  const { schema, tableName, properties } = em.getMetadata().get(User);
  const column = (property: 'id' | 'name' | 'email') => `u."${properties[property].fieldNames[0]}"`;
  const name = leftOf(column('name'), MAX_CHARACTERS.name);
  const email = leftOf(column('email'), MAX_CHARACTERS.email);
  const id = idOf(idText, properties.id.columnTypes[0] ?? 'text');
  return `(select json_build_object('id', ${column('id')}::text, 'name', ${name}, 'email', ${email})
    from "${schema}"."${tableName}" u where ${column('id')} = ${id})`;
}

/** Converts the text instead of the column, so that PostgreSQL can use the primary key. */
function idOf(text: string, type: string): string {
  if (type === 'uuid') return `case when ${text} ~* '${UUID}' then ${text}::uuid end`;
  if (type === 'integer' || type === 'bigint') {
    return `case when ${text} ~ '^[1-9][0-9]{0,17}$' then ${text}::bigint end`;
  }
  return text;
}

const UUID = '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
