import { Module } from '@nestjs/common';
import { ChangeFeed } from './change-feed.js';
import { UnitOfWork } from './unit-of-work.js';

@Module({ providers: [ChangeFeed, UnitOfWork], exports: [ChangeFeed, UnitOfWork] })
export class DatabaseModule {}
