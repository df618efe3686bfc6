/**
 * An OpenTelemetry SDK that `node --import` starts is registered before this file runs, under this
 * key of the global object. Without an SDK, the API is not loaded, and requests need no more time.
 */
const hasSdk = Reflect.has(globalThis, Symbol.for('opentelemetry.js.api.1'));
const api = hasSdk ? await import('@opentelemetry/api') : undefined;
const tracer = api?.trace.getTracer('gatehouse');

/** Runs the work in a span. The span of a failure has no message, which could contain values. */
export function inSpan<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
  if (!api || !tracer) return work();
  return tracer.startActiveSpan(name, async (span) => {
    try {
      return await work();
    } catch (error) {
      span.setStatus({ code: api.SpanStatusCode.ERROR });
      throw error;
    } finally {
      span.end();
    }
  });
}

/** Returns the id of the active trace. The function is undefined without an SDK. */
export const activeTraceId =
  api && ((): string | undefined => api.trace.getActiveSpan()?.spanContext().traceId);
