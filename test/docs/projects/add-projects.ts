import { Migration } from '@mikro-orm/migrations';

export class Migration20261128100000_add_projects extends Migration {
  override up(): void {
    this.addSql(`create schema if not exists "app";`);
    this.addSql(
      `create table "app"."project" ("id" uuid not null default gen_random_uuid(), "name" varchar(100) not null, "archived" boolean not null default false, "created_at" timestamptz not null default now(), "owner_id" text not null, primary key ("id"));`,
    );
    this.addSql(`create index "project_owner_id_index" on "app"."project" ("owner_id");`);

    this.addSql(
      `alter table "app"."project" add constraint "project_owner_id_foreign" foreign key ("owner_id") references "user" ("id") on delete cascade;`,
    );
  }

  override down(): void {
    this.addSql(`drop table if exists "app"."project" cascade;`);
  }
}
