import { randomBytes } from 'node:crypto';
import type { BetterAuth } from '../../tools/better-auth.ts';
import { registerSecret, registerToken } from './leak-detector.ts';

export interface TestUser {
  id: string;
  email: string;
  password: string;
  /** Better-Auth's own credential, for calls to Better-Auth. */
  session: string;
  /** A JWT from Better-Auth, for calls to Gatehouse. */
  token: string;
}

/** Somebody new, signed up at a real Better-Auth. */
export async function signUp(auth: BetterAuth, name = 'Ada Lovelace'): Promise<TestUser> {
  const email = `${randomBytes(6).toString('hex')}@example.com`;
  const password = randomBytes(12).toString('hex');
  const { user, sessionToken } = await auth.signUp({ email, password, name });
  const token = await auth.tokenFor(sessionToken);
  registerSecret('a password', password);
  registerSecret('session.token', sessionToken);
  registerToken(token);
  return { id: user.id, email, password, session: sessionToken, token };
}

/** What a token says, unverified. */
export function claimsOf(token: string): Record<string, unknown> {
  const [, payload = ''] = token.split('.');
  return JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
}
