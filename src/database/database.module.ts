import { Module } from '@nestjs/common';
import { ChangeFeed } from './change-feed.js';
import { TransactionRunner } from './unit-of-work.js';

@Module({ providers: [ChangeFeed, TransactionRunner], exports: [ChangeFeed, TransactionRunner] })
export class DatabaseModule {}
