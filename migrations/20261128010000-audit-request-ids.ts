import { Migration } from '@mikro-orm/migrations';

/**
 * `request_id` becomes Gatehouse's own id, and a new column holds the client's. The append-only
 * trigger now also fires for `session_replication_role = replica` and for replicated rows.
 */
export class AuditRequestIds extends Migration {
  override async up(): Promise<void> {
    this.addSql(`
      set local lock_timeout = '5s';
      alter table gatehouse.audit_event add column client_request_id text;
      alter table gatehouse.audit_event enable always trigger audit_event_append_only;
    `);
  }

  override async down(): Promise<void> {
    this.addSql(`
      set local lock_timeout = '5s';
      alter table gatehouse.audit_event enable trigger audit_event_append_only;
      alter table gatehouse.audit_event drop column client_request_id;
    `);
  }
}
