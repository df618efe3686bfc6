/**
 * Finds the token in a text that the user pasted into "Authorize": with `Bearer` before it, in
 * quotes, as the whole JSON from Better-Auth, or with line breaks of a terminal.
 *
 * @param {string} text
 * @returns {{ token: string } | { mistake: string }}
 */
export function readPastedToken(text) {
  // Both parts of a JWT are JSON objects, and `{"` begins with `ey` in base64url.
  const [token] = /ey[\w-]+\.ey[\w-]+\.[\w-]+/.exec(text.replaceAll(/[\r\n]/g, '')) ?? [];
  if (token !== undefined) return { token };
  if (text.trim() === '') return { mistake: 'Paste a token first.' };
  const form = 'A token starts with "ey" and contains two dots.';
  if (/^\s*"?[A-Za-z0-9]{32}(\.|"?\s*$)/.test(text)) {
    return {
      mistake: `This is the session token of Better-Auth, which only Better-Auth accepts. ${form}`,
    };
  }
  if (/ey[\w-]+/.test(text)) {
    return { mistake: `This is only a part of a token. ${form} Copy it completely.` };
  }
  return { mistake: `This is not a token. ${form} Better-Auth returns one at /api/auth/token.` };
}
