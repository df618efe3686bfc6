import { Module } from '@nestjs/common';
import { ChangeFeed } from './change-feed.js';
import { DatabaseMetrics } from './database-metrics.js';
import { TransactionRunner } from './transaction-runner.js';

@Module({
  providers: [ChangeFeed, DatabaseMetrics, TransactionRunner],
  exports: [ChangeFeed, TransactionRunner],
})
export class DatabaseModule {}
