import { MikroOrmModule } from '@mikro-orm/nestjs';
import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/audit.module.js';
import { DatabaseModule } from '../database/database.module.js';
import { UsersModule } from '../users/users.module.js';
import { Session } from '../better-auth/session.entity.js';
import { AllSessionsController } from './all-sessions.controller.js';
import { SessionListRepository } from './session-list.repository.js';
import { SessionListService } from './session-list.service.js';
import { SessionRevocationService } from './session-revocation.service.js';
import { SessionsController } from './sessions.controller.js';
import { SessionsService } from './sessions.service.js';

@Module({
  imports: [MikroOrmModule.forFeature([Session]), UsersModule, AuditModule, DatabaseModule],
  controllers: [AllSessionsController, SessionsController],
  providers: [SessionsService, SessionListService, SessionListRepository, SessionRevocationService],
})
export class SessionsModule {}
