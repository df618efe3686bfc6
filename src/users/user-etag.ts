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
import { Problems } from '../problems/problems.decorator.js';
import type { UserRead } from './user.dto.js';
import type { UserWithEtag } from './users.service.js';

/** Sends the user as the body and its tag as the header. */
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

/** A controller whose routes answer with one user and its `ETag`. */
export function SendsEtag() {
  return UseInterceptors(EtagInterceptor);
}

/** A change that `If-Match` can tie to the version that the client has seen. */
export function AcceptsIfMatch() {
  return applyDecorators(
    ApiHeader({
      name: 'If-Match',
      required: false,
      description:
        'The `ETag` of the version that you have read: if it has changed, nothing happens',
    }),
    Problems('PRECONDITION_FAILED'),
  );
}
