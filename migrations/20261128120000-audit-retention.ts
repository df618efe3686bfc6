import { Migration } from '@mikro-orm/migrations';

/**
 * Lets `npm run housekeeping` delete old audit events. Other changes stay refused. A deletion must
 * name a time in a setting of its transaction. Each deleted event must be older than that
 * time, and older than 30 days. The role of the running service has no right to delete at all.
 */
export class AuditRetention extends Migration {
  override async up(): Promise<void> {
    this.addSql(`
      set local lock_timeout = '5s';
      create or replace function gatehouse.refuse_change() returns trigger language plpgsql as $$
      begin
        if tg_op = 'DELETE' and coalesce(current_setting('gatehouse.audit_retention', true), '') <> ''
        then
          return null;
        end if;
        raise exception 'audit events are never changed' using errcode = 'restrict_violation';
      end $$;

      create function gatehouse.refuse_young_deletion() returns trigger language plpgsql as $$
      declare
        young timestamptz := least(
          current_setting('gatehouse.audit_retention')::timestamptz, now() - interval '30 days');
      begin
        if exists (select from old_rows where at >= young) then
          raise exception 'audit events of this age are never deleted'
            using errcode = 'restrict_violation';
        end if;
        return null;
      end $$;
      create trigger audit_event_retention after delete on gatehouse.audit_event
        referencing old table as old_rows
        for each statement execute function gatehouse.refuse_young_deletion();
      alter table gatehouse.audit_event enable always trigger audit_event_retention;
    `);
  }

  override async down(): Promise<void> {
    this.addSql(`
      set local lock_timeout = '5s';
      drop trigger audit_event_retention on gatehouse.audit_event;
      drop function gatehouse.refuse_young_deletion();
      create or replace function gatehouse.refuse_change() returns trigger language plpgsql as $$
      begin
        raise exception 'audit events are never changed' using errcode = 'restrict_violation';
      end $$;
    `);
  }
}
