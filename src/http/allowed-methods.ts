import type { Request } from 'express';

/** The part of Express' router used below. Express has no types for it. */
interface Layer {
  route?: { methods: Record<string, boolean> };
  match(path: string): boolean;
}

/**
 * The methods that the path of an unmatched request supports. Express responds with 404 to a known
 * path with an unsupported method. RFC 9110, section 15.5.6 requires 405 and the list of methods.
 */
export function allowedMethods(request: Request): string[] {
  const { stack } = (request.app as unknown as { router: { stack: Layer[] } }).router;
  const methods = stack
    .filter((layer) => layer.route && layer.match(request.path))
    .flatMap((layer) => Object.keys(layer.route?.methods ?? {}))
    .map((method) => method.toUpperCase());
  const unique = new Set(methods);
  if (unique.has('GET')) unique.add('HEAD');
  return unique.has(request.method) ? [] : [...unique].toSorted();
}
