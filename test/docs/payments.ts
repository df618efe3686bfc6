import { createHmac, timingSafeEqual } from 'node:crypto';
import { Controller, Headers, HttpCode, Post, RawBody } from '@nestjs/common';
import { ApiHeader } from '@nestjs/swagger';
import { Public } from '../../src/access/decorators.js';
import { registerProblems } from '../../src/problems/problem.js';
import { Problems } from '../../src/problems/problems.decorator.js';

const paymentProblem = registerProblems({
  SIGNATURE_WRONG: {
    status: 401,
    title: 'The signature is wrong',
    meaning: 'The header `x-signature` is not the HMAC of the body with the shared secret.',
  },
});

@Controller('payments')
export class PaymentsController {
  @Post()
  @Public()
  @HttpCode(204)
  @ApiHeader({ name: 'x-signature', schema: { type: 'string', maxLength: 64 } })
  @Problems('SIGNATURE_WRONG')
  paid(@RawBody() body: Buffer, @Headers('x-signature') signature = ''): void {
    const secret = process.env['PAYMENTS_SECRET'];
    if (!secret) throw new Error('PAYMENTS_SECRET is not set.');
    const expected = createHmac('sha256', secret).update(body).digest();
    const given = Buffer.from(signature, 'hex');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      throw paymentProblem('SIGNATURE_WRONG');
    }
    // JSON.parse(body.toString()) is the payment.
  }
}
