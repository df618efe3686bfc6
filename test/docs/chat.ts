import type { IncomingMessage } from 'node:http';
import { Module } from '@nestjs/common';
import {
  ConnectedSocket,
  type OnGatewayConnection,
  SubscribeMessage,
  WebSocketGateway,
} from '@nestjs/websockets';
import type { WebSocket } from 'ws';
import { Public } from '../../src/access/decorators.js';
import type { Principal } from '../../src/access/principal.js';
import { AuthService } from '../../src/auth/auth.service.js';

@Public() // the guards cannot protect messages: handleConnection authenticates
@WebSocketGateway({ path: '/chat' })
export class ChatGateway implements OnGatewayConnection {
  private readonly principals = new WeakMap<WebSocket, Promise<Principal>>();

  constructor(private readonly auth: AuthService) {}

  handleConnection(client: WebSocket, request: IncomingMessage) {
    const principal = this.auth.authenticate(request.headers.authorization);
    this.principals.set(client, principal);
    principal.catch(() => client.close(4401, 'Unauthorized'));
  }

  @SubscribeMessage('name')
  async name(@ConnectedSocket() client: WebSocket) {
    const principal = await this.principals.get(client);
    return { event: 'name', data: principal?.user.name };
  }
}

@Module({ providers: [ChatGateway] })
export class ChatModule {}
