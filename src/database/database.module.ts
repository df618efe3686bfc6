import { Module } from '@nestjs/common';
import { UnitOfWork } from './unit-of-work.js';

@Module({ providers: [UnitOfWork], exports: [UnitOfWork] })
export class DatabaseModule {}
