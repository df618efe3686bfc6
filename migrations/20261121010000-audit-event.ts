import { Migration } from '@mikro-orm/migrations';

/**
 * The record of changes by admins and users. It is append-only: a trigger rejects updates,
 * deletions and truncation.
 */
export class AuditEventTable extends Migration {
  override async up(): Promise<void> {
    this.addSql(`
      create table gatehouse.audit_event (
        id uuid primary key,
        at timestamptz not null,
        action text not null,
        actor_id text not null,
        impersonator_id text,
        target_user_id text not null,
        before jsonb,
        after jsonb,
        reason text,
        request_id text not null,
        ip text,
        user_agent text
      );
      create index audit_event_target_idx on gatehouse.audit_event (target_user_id, id);
      create index audit_event_actor_idx on gatehouse.audit_event (actor_id, id);
      create index audit_event_action_idx on gatehouse.audit_event (action, id);
      create index audit_event_at_idx on gatehouse.audit_event (at, id);

      create function gatehouse.refuse_change() returns trigger language plpgsql as $$
      begin
        raise exception 'audit events are never changed' using errcode = 'restrict_violation';
      end $$;
      create trigger audit_event_append_only
        before update or delete or truncate on gatehouse.audit_event
        for each statement execute function gatehouse.refuse_change();
    `);
  }

  override async down(): Promise<void> {
    this.addSql('drop table gatehouse.audit_event; drop function gatehouse.refuse_change()');
  }
}
