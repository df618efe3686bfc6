interface ListPage {
  body: { items: { id: string }[]; pagination: { nextCursor: string | null } };
}

/**
 * Follows the cursors of a list, and returns the ids of all pages. Stops after `max` ids, so that a
 * list which repeats its pages fails a test instead of blocking it.
 */
export async function idsByCursor(
  readPage: (cursorParameter: string) => Promise<ListPage>,
  max: number,
): Promise<string[]> {
  const ids: string[] = [];
  let cursor: string | null = null;
  do {
    const { body }: ListPage = await readPage(cursor === null ? '' : `&cursor=${cursor}`);
    ids.push(...body.items.map(({ id }) => id));
    cursor = body.pagination.nextCursor;
  } while (cursor !== null && ids.length < max);
  return ids;
}
