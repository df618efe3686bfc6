import { applyDecorators } from '@nestjs/common';
import { ApiExtension } from '@nestjs/swagger';
import type { ErrorCode } from './problem.js';

/** The problems that a route can answer with, for its documentation. `openapi.ts` spells them out. */
export function Problems(...codes: ErrorCode[]) {
  return applyDecorators(...codes.map((code) => ApiExtension(`${PROBLEM_MARK}${code}`, true)));
}

export const PROBLEM_MARK = 'x-problem-';
