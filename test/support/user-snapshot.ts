import type { TestDatabase } from './database.js';

/** Copies all users and sessions. The returned function restores them. */
export async function takeSnapshot(database: TestDatabase): Promise<() => Promise<void>> {
  await database.sql('drop table if exists kept_user, kept_session');
  await database.sql('create table kept_user as table "user"');
  await database.sql('create table kept_session as table session');
  return async () => {
    await database.sql(`update "user" u set name = k.name, image = k.image, role = k.role, banned = k.banned,
      "banReason" = k."banReason", "banExpires" = k."banExpires", "updatedAt" = k."updatedAt"
      from kept_user k where k.id = u.id`);
    await database.sql('delete from session');
    await database.sql('insert into session table kept_session');
  };
}
