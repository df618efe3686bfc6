import type { ExecutionContext, Type } from '@nestjs/common';

type Handler = ReturnType<ExecutionContext['getHandler']>;

/** Decorators do not change, and to look for them costs more than to obey them: once for each route. */
export function memoizePerRoute<Value>(
  read: (controller: Type, handler: Handler) => Value,
): (context: ExecutionContext) => Value {
  const known = new WeakMap<Type, Map<Handler, Value>>();
  return (context) => {
    const [controller, handler] = [context.getClass(), context.getHandler()];
    const ofController = known.get(controller) ?? new Map<Handler, Value>();
    if (ofController.has(handler)) return ofController.get(handler) as Value;
    const value = read(controller, handler);
    known.set(controller, ofController.set(handler, value));
    return value;
  };
}
