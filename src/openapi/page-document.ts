import type { OpenAPIObject } from '@nestjs/swagger';
import type { Environment } from '../config/environment.js';
import { operationsOf } from './document.js';
import { DAILY_ORDER, pageIntroduction } from './introduction.js';

/** A shorter document for Swagger UI, with the address of the running Better-Auth. */
export function pageDocument(
  document: OpenAPIObject,
  { BETTER_AUTH_URL, DOCS_SIGN_IN }: Environment,
): OpenAPIObject {
  const page = structuredClone(document);
  const tokenUrl = `${BETTER_AUTH_URL.replace(/\/+$/, '')}/api/auth/token`;
  page.info.description = pageIntroduction(tokenUrl, DOCS_SIGN_IN);
  delete page.info.license;
  // Without servers, Swagger UI sends requests to its own origin and shows no choice.
  delete page.servers;
  const { bearer } = page.components?.securitySchemes ?? {};
  const pasted = 'You can paste the whole response: the page finds the token in it.';
  Object.assign(bearer ?? {}, { description: `Paste a token from ${tokenUrl}. ${pasted}` });
  for (const [, operation] of operationsOf(page)) {
    const position = DAILY_ORDER.indexOf(String(operation['operationId']));
    operation['x-order'] = position === -1 ? DAILY_ORDER.length : position;
    // Swagger UI would fill in and send the examples of parameters.
    for (const parameter of operation.parameters ?? []) delete parameter.example;
    operation.parameters?.sort((a, b) => Number(a.in === 'header') - Number(b.in === 'header'));
    for (const [status, response] of Object.entries(operation.responses)) {
      // All routes have the same headers, and all errors the same form.
      delete response.headers;
      if (Number(status) >= 400) delete response.content;
    }
  }
  return page;
}
