import { type EntityRepository, Type } from '@mikro-orm/core';

/**
 * Better-Auth stores texts of any length. No query reads more characters of these columns, and
 * PostgreSQL fetches only the beginning of a value that it keeps out of line.
 */
export const MAX_CHARACTERS = {
  email: 320,
  name: 255,
  image: 2048,
  banReason: 500,
  ipAddress: 64,
  userAgent: 512,
  accountId: 255,
  scope: 2048,
} as const;

/**
 * A text column that is read up to a limit. The entity is compared with what was read, so a text
 * that was cut is never written back unless somebody sets it.
 */
export class BoundedText extends Type<string, string> {
  constructor(private readonly maxCharacters: number) {
    super();
  }

  override convertToJSValueSQL(key: string): string {
    return leftOf(key, this.maxCharacters);
  }

  override getColumnType(): string {
    return 'text';
  }

  override compareAsType(): string {
    return 'string';
  }
}

/**
 * For a find: only the columns that are mapped. MikroORM otherwise selects `*` beside the columns that
 * have a conversion, and so reads the whole text, and what no entity may hold, after all.
 */
export function mappedOnly(
  repository: Pick<EntityRepository<never>, 'getEntityManager' | 'getEntityName'>,
): object {
  const metadata = repository.getEntityManager().getMetadata();
  const { props } = metadata.getByClassName(repository.getEntityName());
  return { fields: props.map(({ name }) => name) };
}

export function leftOf(column: string, characters: number): string {
  return `left(${column}, ${characters})`;
}
