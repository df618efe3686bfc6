import { type Express, type RequestHandler, Router } from 'express';
import { problem } from '../problems/problem.js';

interface RegisteredRoute {
  path: string;
  /** Undefined for a mounted router. */
  methods: string[] | undefined;
}

/** The routes that are registered in Express. Its types omit this method. */
export function listRoutes(app: Express): RegisteredRoute[] {
  return (app.router as Router & { listRoutes(): RegisteredRoute[] }).listRoutes();
}

/**
 * Handles a request that no route handled. Express responds with 404 to a known path with an
 * unsupported method. RFC 9110, section 15.5.6 requires 405 and the list of methods.
 */
export function methodNotAllowed(app: Express): RequestHandler {
  const router = Router();
  const byPath = Map.groupBy(listRoutes(app), ({ path }) => path);
  for (const [path, routes] of byPath) {
    const methods = routes.flatMap((route) => route.methods ?? []);
    router.all(path, (_request, { locals }, next) => {
      locals['allowedMethods'] = [...allowedMethods(locals), ...methods];
      next();
    });
  }
  router.use((request, { locals }, next) => {
    // The router above set it, but no route handles this request.
    delete request.route;
    const methods = new Set(allowedMethods(locals));
    if (methods.size === 0 || methods.has(request.method) || methods.has('*')) return next();
    throw problem('METHOD_NOT_ALLOWED', { headers: { Allow: [...methods].toSorted().join(', ') } });
  });
  return router;
}

function allowedMethods(locals: Record<string, unknown>): string[] {
  return (locals['allowedMethods'] as string[] | undefined) ?? [];
}
