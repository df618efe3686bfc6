import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findFreePort, isPortInUse } from '../../tools/ports.ts';
import { type ExternalProgram, findProgram, startExternalProgram } from './external-program.ts';

export interface PgBouncer extends ExternalProgram {
  port: number;
}

/** Debian's, in transaction mode, before every database of one server. */
export async function startPgBouncer(
  folder: string,
  serverPort: number,
  user: string,
  password: string,
): Promise<PgBouncer> {
  const program = findProgram('pgbouncer');
  if (!program) throw new Error('pgbouncer is not installed.');
  const port = await findFreePort();
  mkdirSync(folder, { recursive: true });
  const users = join(folder, 'users.txt');
  const settings = join(folder, 'pgbouncer.ini');
  writeFileSync(users, `"${user}" "${password}"\n`);
  writeFileSync(
    settings,
    `[databases]
* = host=127.0.0.1 port=${serverPort}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${users}
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
server_login_retry = 0
`,
  );
  for (const path of [folder, users, settings]) chmodSync(path, path === folder ? 0o755 : 0o644);
  // It refuses to run as root, and gives its rights up by itself.
  const asNobody = process.getuid?.() === 0 ? ['-u', 'nobody'] : [];
  const pooler = startExternalProgram(program, [...asNobody, settings]);
  await pooler.untilReady(() => isPortInUse(port));
  return { ...pooler, port };
}
