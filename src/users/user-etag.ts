import {
  applyDecorators,
  type CallHandler,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  UseInterceptors,
} from '@nestjs/common';
import { ApiHeader } from '@nestjs/swagger';
import type { Response } from 'express';
import { map, type Observable } from 'rxjs';
import type { UserRow } from '../access/principal.js';
import { etagOf } from '../http/etag.js';
import { Problems } from '../problems/problems.decorator.js';
import { UserRead } from './user.dto.js';

/** A user in the form for clients, and the ETag of that form. */
export interface UserWithEtag {
  user: UserRead;
  etag: string;
}

export function withEtag(row: UserRow): UserWithEtag {
  const user = UserRead.of(row, new Date());
  return { user, etag: etagOf(user) };
}

/** Sends the user as the body and the ETag as a header. */
@Injectable()
class EtagInterceptor implements NestInterceptor<UserWithEtag, UserRead> {
  intercept(context: ExecutionContext, next: CallHandler<UserWithEtag>): Observable<UserRead> {
    const response = context.switchToHttp().getResponse<Response>();
    return next.handle().pipe(
      map(({ user, etag }) => {
        response.setHeader('ETag', etag);
        return user;
      }),
    );
  }
}

/** For a route that responds with one user and its `ETag`. */
export function SendsEtag() {
  return UseInterceptors(EtagInterceptor);
}

/** For a change that the client can make conditional with `If-Match`. */
export function AcceptsIfMatch() {
  return applyDecorators(
    ApiHeader({
      name: 'If-Match',
      required: false,
      description:
        'The `ETag` that you received with the user. The change happens only if the user still has it. Without this header, the last write wins.',
      example: '"k1m2n3o4p5q6r7s8t9u0v1w2x3y"',
      // All headers of a request together can be this long.
      schema: { type: 'string', maxLength: 16_384 },
    }),
    Problems('PRECONDITION_FAILED'),
  );
}
