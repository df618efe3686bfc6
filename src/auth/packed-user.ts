import type { UserWithSession } from './auth.repository.js';

/**
 * Packs a cached user and session into one text. Objects need three times the memory, and the cache
 * has tens of thousands of entries. Unpacking takes a few microseconds. Impersonated sessions are
 * never cached.
 */
export function pack({ user, session }: UserWithSession): string {
  const packed: Packed = [
    user.id,
    user.email,
    user.emailVerified,
    user.name,
    user.image,
    user.role,
    user.banned,
    user.banReason,
    user.banExpires && user.banExpires.getTime(),
    user.createdAt.getTime(),
    user.updatedAt.getTime(),
    session && [
      session.id,
      session.createdAt.getTime(),
      session.updatedAt.getTime(),
      session.expiresAt.getTime(),
      session.ipAddress,
      session.userAgent,
    ],
  ];
  return JSON.stringify(packed);
}

export function unpack(text: string): UserWithSession {
  const [
    id,
    email,
    emailVerified,
    name,
    image,
    role,
    banned,
    banReason,
    banExpires,
    createdAt,
    updatedAt,
    session,
  ] = JSON.parse(text) as Packed;
  // Frozen, because several requests may share the objects.
  return {
    user: Object.freeze({
      id,
      email,
      emailVerified,
      name,
      image,
      role,
      banned,
      banReason,
      banExpires: banExpires === null ? null : new Date(banExpires),
      createdAt: new Date(createdAt),
      updatedAt: new Date(updatedAt),
    }),
    session:
      session &&
      Object.freeze({
        id: session[0],
        userId: id,
        createdAt: new Date(session[1]),
        updatedAt: new Date(session[2]),
        expiresAt: new Date(session[3]),
        ipAddress: session[4],
        userAgent: session[5],
        impersonatedBy: null,
      }),
    impersonator: null,
  };
}

type Text = string | null;
type Time = number;

type Packed = [
  id: string,
  email: string,
  emailVerified: boolean,
  name: string,
  image: Text,
  role: Text,
  banned: boolean | null,
  banReason: Text,
  banExpires: Time | null,
  createdAt: Time,
  updatedAt: Time,
  session:
    | [
        id: string,
        createdAt: Time,
        updatedAt: Time,
        expiresAt: Time,
        ipAddress: Text,
        userAgent: Text,
      ]
    | null,
];
