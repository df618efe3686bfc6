import { Body, Controller, HttpCode, Module, Post } from '@nestjs/common';
import { Public } from '../../src/access/decorators.js';

@Controller('open-body')
@Public()
class OpenBodyController {
  @Post()
  @HttpCode(200)
  read(@Body() body: object) {
    return { received: body };
  }
}

/** A route that reads a body of any client: `POST /api/v1/open-body`. */
@Module({ controllers: [OpenBodyController] })
export class OpenBodyModule {}
