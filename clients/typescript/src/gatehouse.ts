import createClient, { type Client, defaultPathSerializer, type Middleware } from 'openapi-fetch';
import { authorizedFetch } from './authorized-fetch.js';
import { type ClientProblem, clientProblem, orThrow, parse, problemResponse } from './problem.js';
import type { paths } from './schema.js';
import { TokenSource } from './token-source.js';

export interface GatehouseOptions {
  /** The origin of Gatehouse: https://api.example.com */
  api: string;
  /** The base path of Better-Auth: https://auth.example.com/api/auth */
  auth: string;
  /**
   * Options of the token request. By default, a browser sends the cookie of its sign-in. Other
   * clients need Better-Auth's plugin bearer(), and pass
   * { headers: { authorization: `Bearer ${sessionToken}` } }.
   */
  signedIn?: RequestInit;
  /** Called once when the session of the user has ended. Show the sign-in page. */
  signedOut?: () => void;
}

/** The client of openapi-fetch, with Gatehouse's token, retries and lists. */
export type Gatehouse<Paths extends {} = paths> = Client<WithClientProblems<Paths>, Media> & {
  /** Reads a whole list by its cursors, so the last page is as fast as the first. */
  each<Path extends ListPath<Paths>>(
    path: Path,
    query?: QueryOf<Paths[Path]>,
    options?: { signal?: AbortSignal },
  ): AsyncGenerator<ItemOf<Paths[Path]>, void, undefined>;
  /** Call it after a sign-in or sign-out, because the token in memory may be of another user. */
  forgetToken(): void;
};

/** With modules of your own, generate `paths` from your `openapi.json` and pass it as `Paths`. */
export function createGatehouse<Paths extends {} = paths>(
  options: GatehouseOptions,
): Gatehouse<Paths> {
  const { api, auth, signedIn = { credentials: 'include' }, signedOut = () => {} } = options;
  const tokens = new TokenSource(auth, signedIn, signedOut);
  const fetch = authorizedFetch(tokens, new Request(`${api}/`).url);
  const client = createClient<Lists>({ baseUrl: api, fetch, pathSerializer });
  client.use(expectJson);

  async function* each(path: '/list', query: Query = {}, init: { signal?: AbortSignal } = {}) {
    let cursor: string | null = query.cursor ?? null;
    do {
      const next = { limit: MAX_LIMIT, ...query, ...(cursor === null ? {} : { cursor }) };
      const page = await orThrow(client.GET(path, { ...init, params: { query: next } }));
      yield* page.items;
      cursor = page.pagination.nextCursor;
    } while (cursor !== null);
  }

  return Object.assign(client, {
    each,
    forgetToken: () => tokens.drop(),
  }) as unknown as Gatehouse<Paths>;
}

/** `fetch` resolves dots as a part of a path, so the request would reach another route. */
const pathSerializer: typeof defaultPathSerializer = (path, values) => {
  if (Object.values(values).some((value) => /^\.\.?$/.test(String(value)))) {
    throw new TypeError('Invalid path parameter');
  }
  return defaultPathSerializer(path, values);
};

/** The largest page of every list. */
const MAX_LIMIT = 100;

/** A network with a sign-in page of its own returns that page, with status 200, for any request. */
const expectJson: Middleware = {
  async onResponse({ response, options: { parseAs } }) {
    if (!response.ok || parseAs !== 'json') return undefined;
    const text = await response.clone().text();
    if (text === '' || parse(text) !== undefined) return undefined;
    return problemResponse(clientProblem(response), response);
  },
};

/** All types except streams, such as the export of the audit list (`parseAs: 'stream'`). */
type Media = `${string}/json` | `${string}/${string}+json` | `text/${string}`;

/** Adds the problems of this client to the errors of each operation. */
type WithClientProblems<Paths> = {
  [Path in keyof Paths]: {
    [Method in keyof Paths[Path]]: Paths[Path][Method] extends { responses: infer Responses }
      ? Omit<Paths[Path][Method], 'responses'> & {
          responses: Responses & {
            default: { content: { 'application/problem+json': ClientProblem } };
          };
        }
      : Paths[Path][Method];
  };
};

interface Query {
  limit?: number;
  cursor?: string;
}

interface ListOperation<Item> {
  parameters: { query?: Query };
  responses: {
    200: {
      content: {
        'application/json': { items: Item[]; pagination: { nextCursor: string | null } };
      };
    };
  };
}

/** Any list, for the implementation of `each`. */
type Lists = WithClientProblems<{ '/list': { get: ListOperation<unknown> } }>;

type ListPath<Paths> = {
  [Path in keyof Paths]: Paths[Path] extends { get: ListOperation<unknown> } ? Path : never;
}[keyof Paths];

type QueryOf<Item> = Item extends { get: { parameters: { query?: infer Query } } } ? Query : never;

type ItemOf<Path> = Path extends { get: ListOperation<infer Item> } ? Item : never;
