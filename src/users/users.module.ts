import { MikroOrmModule } from '@mikro-orm/nestjs';
import { Module } from '@nestjs/common';
import { AdminCheck } from './admin-check.js';
import { AuditModule } from '../audit/audit.module.js';
import { User } from '../better-auth/user.entity.js';
import { DatabaseModule } from '../database/database.module.js';
import { UserChangeService } from './user-change.service.js';
import { UserListRepository } from './user-list.repository.js';
import { UserListService } from './user-list.service.js';
import { UserSessionsRepository } from './user-sessions.repository.js';
import { UsersController } from './users.controller.js';
import { UsersService } from './users.service.js';

@Module({
  imports: [MikroOrmModule.forFeature([User]), AuditModule, DatabaseModule],
  controllers: [UsersController],
  providers: [
    AdminCheck,
    UserChangeService,
    UsersService,
    UserListService,
    UserListRepository,
    UserSessionsRepository,
  ],
  exports: [MikroOrmModule, AdminCheck, UserChangeService],
})
export class UsersModule {}
