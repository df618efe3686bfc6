import { Controller, Get, Module, Param, Post } from '@nestjs/common';
import {
  CurrentUser,
  Public,
  RequireVerifiedEmail,
  Roles,
  SelfOrAdmin,
} from '../../src/access/decorators.js';
import type { UserRow } from '../../src/access/principal.js';

@Controller('notes')
export class NotesController {
  @Get('mine') // for every signed-in user, without a decorator
  mine(@CurrentUser() me: UserRow) {
    return { title: `The notes of ${me.name}` };
  }

  @Get('motto')
  @Public()
  motto() {
    return { title: 'Trust, but look it up' };
  }

  @Get('statistics')
  @Roles('admin', 'support')
  statistics() {
    return { notes: 42 };
  }

  @Get('of/:userId')
  @SelfOrAdmin('userId')
  of(@Param('userId') userId: string) {
    return { title: `The notes of ${userId}` };
  }

  @Post()
  @RequireVerifiedEmail()
  write(@CurrentUser() me: UserRow) {
    return { writtenBy: me.id };
  }
}

@Module({ controllers: [NotesController] })
export class NotesModule {}
