import { Migration } from '@mikro-orm/migrations';
import { inspectDatabase } from '../src/database/inspect.js';
import { isNew } from '../src/database/physical-schema.js';

/**
 * In an existing database this changes nothing: Gatehouse uses Better-Auth's tables as they are. In
 * a new one it creates the tables of Better-Auth 1.7 with the admin and jwt plugins. So either
 * program can start first.
 */
export class AdoptBetterAuthTables extends Migration {
  override async up(): Promise<void> {
    const schema = await inspectDatabase((sql) => this.execute(sql), {
      schema: this.config.get('schema'),
      columns: 'auto',
      requireSessions: false,
    });
    if (isNew(schema)) this.addSql(betterAuthTables(`"${schema.schema}"`));
  }

  /** Never drops them: they hold Better-Auth's data. */
  override async down(): Promise<void> {}
}

function betterAuthTables(schema: string): string {
  return `
    create table ${schema}."user" (
      "id" text not null primary key,
      "name" text not null,
      "email" text not null unique,
      "emailVerified" boolean not null,
      "image" text,
      "createdAt" timestamptz default current_timestamp not null,
      "updatedAt" timestamptz default current_timestamp not null,
      "role" text,
      "banned" boolean,
      "banReason" text,
      "banExpires" timestamptz
    );
    create table ${schema}."session" (
      "id" text not null primary key,
      "expiresAt" timestamptz not null,
      "token" text not null unique,
      "createdAt" timestamptz default current_timestamp not null,
      "updatedAt" timestamptz not null,
      "ipAddress" text,
      "userAgent" text,
      "userId" text not null references ${schema}."user" ("id") on delete cascade,
      "impersonatedBy" text
    );
    create table ${schema}."account" (
      "id" text not null primary key,
      "accountId" text not null,
      "providerId" text not null,
      "userId" text not null references ${schema}."user" ("id") on delete cascade,
      "accessToken" text,
      "refreshToken" text,
      "idToken" text,
      "accessTokenExpiresAt" timestamptz,
      "refreshTokenExpiresAt" timestamptz,
      "scope" text,
      "password" text,
      "createdAt" timestamptz default current_timestamp not null,
      "updatedAt" timestamptz not null
    );
    create table ${schema}."verification" (
      "id" text not null primary key,
      "identifier" text not null,
      "value" text not null,
      "expiresAt" timestamptz not null,
      "createdAt" timestamptz default current_timestamp not null,
      "updatedAt" timestamptz default current_timestamp not null
    );
    create table if not exists ${schema}."jwks" (
      "id" text not null primary key,
      "publicKey" text not null,
      "privateKey" text not null,
      "createdAt" timestamptz not null,
      "expiresAt" timestamptz,
      "alg" text,
      "crv" text
    );
    create index "session_userId_idx" on ${schema}."session" ("userId");
    create index "account_userId_idx" on ${schema}."account" ("userId");
    create index "verification_identifier_idx" on ${schema}."verification" ("identifier")`;
}
