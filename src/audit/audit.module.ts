import { MikroOrmModule } from '@mikro-orm/nestjs';
import { Module } from '@nestjs/common';
import { User } from '../better-auth/user.entity.js';
import { AuditEvent } from './audit-event.entity.js';
import { AuditListService } from './audit-list.service.js';
import { AuditController } from './audit.controller.js';
import { AuditService } from './audit.service.js';

@Module({
  imports: [MikroOrmModule.forFeature([AuditEvent, User])],
  controllers: [AuditController],
  providers: [AuditService, AuditListService],
  exports: [AuditService],
})
export class AuditModule {}
