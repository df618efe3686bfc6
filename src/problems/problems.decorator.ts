import { applyDecorators } from '@nestjs/common';
import { ApiExtension } from '@nestjs/swagger';
import { type ErrorCode, kindOf } from './problem.js';

/**
 * Documents the problems that a route can respond with, including registered ones.
 * `openapi/document.ts` expands them.
 */
export function Problems(...codes: (ErrorCode | (string & {}))[]) {
  codes.forEach(kindOf);
  return applyDecorators(...codes.map((code) => ApiExtension(`${PROBLEM_MARK}${code}`, true)));
}

export const PROBLEM_MARK = 'x-problem-';
