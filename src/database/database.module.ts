import { Module } from '@nestjs/common';
import { ChangeFeed } from './change-feed.js';
import { TransactionRunner } from './transaction-runner.js';

@Module({ providers: [ChangeFeed, TransactionRunner], exports: [ChangeFeed, TransactionRunner] })
export class DatabaseModule {}
