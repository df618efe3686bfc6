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
 * A text column that is read up to a limit. MikroORM compares the entity with the text that it
 * read, so it never writes a truncated text back unless the property is set.
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
 * Find options that select only the mapped columns. Without them, MikroORM selects `*` beside the
 * columns that have a conversion. It would read whole texts and columns that no entity may hold.
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
