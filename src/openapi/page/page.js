import { readPastedToken } from './pasted-token.js';
import { startSignIn } from './sign-in.js';
import { PLACEHOLDER } from './token-session.js';

/**
 * The parts of Swagger UI that this page uses.
 *
 * @typedef {import('./token-session.js').TokenSession['send']} Send
 * @typedef {{ headers: Record<string, string>, userFetch?: Send }} Request
 * @typedef {Record<string, { value: string }>} Authorizations
 * @typedef {{ getIn: (path: string[]) => number | undefined }} ListedOperation
 * @typedef {(value: object) => void} Action
 * @typedef {{ errActions: { clear: Action, newAuthErr: Action } }} System
 */

/** The name of the security scheme in the document. */
const SCHEME = 'bearer';
const { betterAuth: betterAuthUrl = '' } = document.body.dataset;
/** Swagger UI needs the type and the disposition itself. */
const SHOWN_HEADERS = new Set([
  'content-type',
  'content-disposition',
  'etag',
  'ratelimit',
  'retry-after',
  'www-authenticate',
  'x-request-id',
]);
const offersSignIn = betterAuthUrl !== '';
/** @type {import('./token-session.js').TokenSession | undefined} */
let session;

/** @type {any} */
const { SwaggerUIBundle } = globalThis;
const ui = SwaggerUIBundle({
  url: '/api/v1/docs/openapi.json',
  dom_id: '#swagger-ui',
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [authorizePlugin],
  deepLinking: true,
  docExpansion: 'list',
  filter: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  operationsSorter: byDailyOrder,
  requestInterceptor: sendBySession,
  responseInterceptor: hideCommonHeaders,
  // Keeps a pasted token in `localStorage`. A page with a sign-in does not need that.
  persistAuthorization: !offersSignIn,
  // Swagger UI can authorize only after it has loaded the document.
  onComplete: () => {
    if (offersSignIn) session ??= startSignIn(betterAuthUrl, { onSignIn, onSignOut });
  },
});

function onSignIn() {
  ui.preauthorizeApiKey(SCHEME, PLACEHOLDER);
}

function onSignOut() {
  ui.authActions.logout([SCHEME]);
  clearResponses();
}

/** @param {ListedOperation} a @param {ListedOperation} b */
function byDailyOrder(a, b) {
  const [first, second] = [a, b].map((listed) => listed.getIn(['operation', 'x-order']) ?? 0);
  return (first ?? 0) - (second ?? 0);
}

/**
 * Swagger UI shows the request that this function returns, so the token is added when it is sent.
 * Swagger UI itself sends a token that the user pasted into "Authorize".
 *
 * @param {Request} request
 */
function sendBySession(request) {
  const current = session;
  if (current && request.headers['Authorization'] === `Bearer ${PLACEHOLDER}`) {
    request.userFetch = (url, sent) => current.send(url, sent);
  }
  return request;
}

/**
 * Swagger UI shows all headers of a response. Most are the same for every response.
 *
 * @param {{ headers: Record<string, string> }} response
 */
function hideCommonHeaders(response) {
  const entries = Object.entries(response.headers);
  response.headers = Object.fromEntries(entries.filter(([name]) => SHOWN_HEADERS.has(name)));
  return response;
}

/** A plugin of Swagger UI. */
function authorizePlugin() {
  return { statePlugins: { auth: { wrapActions: { authorize: authorizePasted } } } };
}

/**
 * Finds the token in a text that the user pastes into "Authorize", or explains what is wrong.
 *
 * @param {(authorizations: Authorizations) => unknown} authorize
 * @param {System} system
 */
function authorizePasted(authorize, { errActions }) {
  return (/** @type {Authorizations} */ authorizations) => {
    const pasted = authorizations[SCHEME];
    if (!pasted || pasted.value === PLACEHOLDER) return authorize(authorizations);
    errActions.clear({ authId: SCHEME, type: 'auth', source: 'auth' });
    const read = readPastedToken(pasted.value ?? '');
    if ('token' in read) {
      return authorize({ ...authorizations, [SCHEME]: { ...pasted, value: read.token } });
    }
    // The level `error` would also show it above the operations, until the next correct one.
    const error = { authId: SCHEME, level: 'warning', source: 'auth', message: read.mistake };
    return errActions.newAuthErr(error);
  };
}

/** After a sign-out, the page shows no data of the previous user. */
function clearResponses() {
  /** @type {Record<string, Record<string, unknown>>} */
  const responses = ui.specSelectors.responses().toJS();
  for (const [path, methods] of Object.entries(responses)) {
    for (const method of Object.keys(methods)) {
      ui.specActions.clearResponse(path, method);
      ui.specActions.clearRequest(path, method);
    }
  }
}
