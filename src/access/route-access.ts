import { Reflector } from '@nestjs/core';
import { memoizePerRoute } from '../http/memoize-per-route.js';
import {
  PERMISSIONS,
  type PermissionRule,
  PUBLIC,
  ROLES,
  SELF,
  type SelfRule,
  VERIFIED,
} from './decorators.js';

/** The access rules of a route, from its decorators and those of its controller. */
export interface RouteAccess {
  isPublic: boolean;
  /** The user needs one of these roles. */
  roles: string[] | undefined;
  permissions: PermissionRule | undefined;
  /** The path parameter that must be the user's own id, and who may pass another one. */
  self: SelfRule | undefined;
  verified: boolean;
}

const reflector = new Reflector();

export const routeAccess = memoizePerRoute((controller, handler): RouteAccess => {
  const metadata = (name: string): unknown =>
    reflector.getAllAndOverride(name, [handler, controller]);
  // A route with an access rule is never public, even in a class with `@Public()`.
  const hasOwnRule = [ROLES, PERMISSIONS, SELF, VERIFIED].some(
    (name) => reflector.get(name, handler) !== undefined,
  );
  return {
    isPublic: metadata(PUBLIC) === true && !hasOwnRule,
    roles: metadata(ROLES) as string[] | undefined,
    permissions: metadata(PERMISSIONS) as PermissionRule | undefined,
    self: metadata(SELF) as SelfRule | undefined,
    verified: metadata(VERIFIED) === true,
  };
});
