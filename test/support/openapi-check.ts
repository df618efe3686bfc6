import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import type { OpenAPIObject } from '@nestjs/swagger';

export interface TestResponse {
  status: number;
  headers: Headers;
  // oxlint-disable-next-line typescript/no-explicit-any -- each test says what it expects
  body: any;
}

/** Throws if a response does not match the OpenAPI document of its operation. */
export type OpenApiCheck = (method: string, path: string, answer: TestResponse) => void;

export function createOpenApiCheck(document: OpenAPIObject): OpenApiCheck {
  const strict = structuredClone(document);
  // The document allows additional fields. The tests do not: an undocumented field is a leak.
  for (const schema of Object.values(strict.components?.schemas ?? {})) {
    Object.assign(schema, { additionalProperties: false });
  }
  const ajv = new Ajv2020.default({ strict: false, allErrors: true });
  addFormats.default(ajv);
  ajv.addSchema({ ...strict, $id: 'api' });
  // A path without parameters comes before one with parameters.
  const templates = Object.keys(strict.paths)
    .toSorted((a, b) => parametersOf(a) - parametersOf(b))
    .map((template) => ({
      template,
      pattern: new RegExp(`^${template.replace(/\{[^}]+\}/g, '[^/]+')}$`),
    }));

  return (method, path, { status, headers, body }) => {
    const [pathname = ''] = path.split('?', 1);
    const matching = templates
      .filter(({ pattern }) => pattern.test(pathname))
      .map(({ template }) => template);
    const hasMethod = (template: string) =>
      descend(strict.paths[template], method.toLowerCase()) !== undefined;
    const template = matching.find(hasMethod) ?? matching[0];
    if (!template) return;
    const type = headers.get('content-type')?.split(';', 1)[0] ?? '';
    const pointer = ['paths', template, method.toLowerCase(), 'responses', String(status)];
    const documented = pointer.reduce<unknown>(descend, strict);
    if (documented === undefined) {
      throw new Error(`${method} ${template} is not documented to answer ${status}`);
    }
    if (body === undefined) return;
    const media = [...pointer, 'content', type];
    if (media.reduce<unknown>(descend, strict) === undefined) {
      throw new Error(`${method} ${template} ${status} is not documented to be ${type}`);
    }
    // A schema cannot describe bytes.
    if (Buffer.isBuffer(body)) return;
    const reference = [...media, 'schema'].map(escapePointer).join('/');
    const validate = ajv.getSchema(`api#/${reference}`);
    if (!validate) throw new Error(`There is no schema at ${reference}`);
    if (!validate(body)) {
      throw new Error(
        `${method} ${template} ${status} is not as documented: ${ajv.errorsText(validate.errors)}`,
      );
    }
  };
}

const parametersOf = (template: string) => template.split('{').length;

function descend(value: unknown, key: string): unknown {
  return value !== null && typeof value === 'object'
    ? (value as Record<string, unknown>)[key]
    : undefined;
}

function escapePointer(part: string): string {
  return encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'));
}
