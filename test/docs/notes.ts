import { Controller, Delete, Get, Module, Param, Post } from '@nestjs/common';
import {
  CurrentPrincipal,
  CurrentUser,
  Public,
  RequirePermissions,
  RequireVerifiedEmail,
  Roles,
  SelfOrAdmin,
} from '../../src/access/decorators.js';
import type { Principal, UserRow } from '../../src/access/principal.js';

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

  @Delete('old')
  @RequirePermissions({ note: ['delete'] }) // `note` is a resource of your own
  removeOld(@CurrentPrincipal() me: Principal) {
    return { deleted: 0, mayBanAuthors: me.can({ user: ['ban'] }) };
  }

  @Post()
  @RequireVerifiedEmail()
  write(@CurrentUser() me: UserRow) {
    return { writtenBy: me.id };
  }
}

@Module({ controllers: [NotesController] })
export class NotesModule {}
