import { Module } from '@nestjs/common';
import { AccountsModule } from '../accounts/accounts.module.js';
import { MeController } from './auth.controller.js';

@Module({ imports: [AccountsModule], controllers: [MeController] })
export class MeModule {}
