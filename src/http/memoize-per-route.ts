import type { ExecutionContext, Type } from '@nestjs/common';

type Handler = ReturnType<ExecutionContext['getHandler']>;

/** Reads the metadata of a route once. Decorators do not change, and reflection is expensive. */
export function memoizePerRoute<Value>(
  read: (controller: Type, handler: Handler) => Value,
): (context: ExecutionContext) => Value {
  const cache = new WeakMap<Type, Map<Handler, Value>>();
  return (context) => {
    const [controller, handler] = [context.getClass(), context.getHandler()];
    const byHandler = cache.get(controller) ?? new Map<Handler, Value>();
    if (byHandler.has(handler)) return byHandler.get(handler) as Value;
    const value = read(controller, handler);
    cache.set(controller, byHandler.set(handler, value));
    return value;
  };
}
