import { MikroOrmModule } from '@mikro-orm/nestjs';
import { Module } from '@nestjs/common';
import { AuditModule } from '../audit/audit.module.js';
import { DatabaseModule } from '../database/database.module.js';
import { AdminCheck } from './admin-check.js';
import { User } from '../better-auth/user.entity.js';
import { UserListController } from './user-list.controller.js';
import { UserListService } from './user-list.service.js';
import { UserListRepository } from './user-list.repository.js';
import { UsersController } from './users.controller.js';
import { UsersService } from './users.service.js';

@Module({
  imports: [MikroOrmModule.forFeature([User]), AuditModule, DatabaseModule],
  controllers: [UserListController, UsersController],
  providers: [AdminCheck, UsersService, UserListService, UserListRepository],
  exports: [MikroOrmModule, AdminCheck],
})
export class UsersModule {}
