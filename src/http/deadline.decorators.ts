import { type CanActivate, UseGuards } from '@nestjs/common';
import { requestOf } from './request-of.js';

/**
 * The time that the route has for its response, instead of 2.2 seconds. It begins when the request
 * is authenticated and its body has arrived.
 */
export function AnswerWithin(milliseconds: number) {
  // A guard of a route runs after those of the application.
  const guard: CanActivate = {
    canActivate(context) {
      const request = requestOf(context);
      if (request) request.deadline = (request.pausedAt ?? performance.now()) + milliseconds;
      return true;
    },
  };
  return UseGuards(guard);
}

/** The route has no deadline, such as one that waits for an event. */
export function NoDeadline() {
  return AnswerWithin(Infinity);
}
