import { applyDecorators, SetMetadata } from '@nestjs/common';
import { ApiBody, ApiConsumes } from '@nestjs/swagger';
import {
  BODY,
  type BodyRules,
  BYTES_BODY,
  FORM_BODY,
  JSON_BODY,
  MULTIPART_BODY,
  TEXT_BODY,
} from './body-rules.js';

interface SizeOptions {
  /** The maximum size in bytes. The default is `BODY_LIMIT`. */
  limit?: number;
}

interface TypeOptions {
  /** The accepted content types, such as `text/csv`. */
  types?: [string, ...string[]];
}

interface FieldOptions {
  /** The maximum number of fields and array items at all depths. The default is 50. */
  maxEntries?: number;
  /** The maximum levels of nesting. The default is 5. */
  maxDepth?: number;
}

/** JSON with other limits than those of every route, or with another content type. */
export function JsonBody(options: SizeOptions & TypeOptions & FieldOptions) {
  return acceptBody({ ...JSON_BODY, ...options });
}

/** The fields of an HTML form, `application/x-www-form-urlencoded`. All values are strings. */
export function FormBody(options: SizeOptions & FieldOptions = {}) {
  return acceptBody({ ...FORM_BODY, ...options });
}

/** Text. `@Body()` is a string. */
export function TextBody({ types = ['text/plain'], limit }: SizeOptions & TypeOptions = {}) {
  return applyDecorators(
    acceptBody({ ...TEXT_BODY, types, limit }),
    ApiBody({ schema: { type: 'string' } }),
  );
}

/** Bytes of any kind. `@Body()` is a `Buffer`. */
export function BytesBody({
  types = ['application/octet-stream'],
  limit,
}: SizeOptions & TypeOptions = {}) {
  return applyDecorators(
    acceptBody({ ...BYTES_BODY, types, limit }),
    ApiBody({ schema: { type: 'string', format: 'binary' } }),
  );
}

/**
 * Files and fields, `multipart/form-data`. An interceptor of the route reads them, such as Nest's
 * `FileInterceptor`. The limit is the size of all files and fields together.
 */
export function MultipartBody(options: SizeOptions & FieldOptions = {}) {
  return acceptBody({ ...MULTIPART_BODY, ...options });
}

function acceptBody(rules: BodyRules) {
  return applyDecorators(SetMetadata(BODY, rules), ApiConsumes(...rules.types));
}
