import { jest } from '@jest/globals';
import type { Logger } from 'pino';
import { LogThrottle } from '../../src/logging/log-throttle.js';

describe('log throttle', () => {
  let now = 1000;
  beforeEach(() => {
    jest.spyOn(performance, 'now').mockImplementation(() => now);
  });
  afterEach(() => {
    jest.restoreAllMocks();
  });

  it('logs the number of suppressed lines with the first line of a later minute', () => {
    const warn = jest.fn();
    const throttle = new LogThrottle({ warn } as unknown as Logger, 'auth.failed', 2);

    expect([1, 2, 3, 4, 5].map(() => throttle.allow())).toEqual([true, true, false, false, false]);
    expect(warn).not.toHaveBeenCalled();

    now += 60_000;
    expect(throttle.allow()).toBe(true);
    const details = { event: 'log.suppressed', of: 'auth.failed', suppressed: 3 };
    expect(warn.mock.calls).toEqual([[details, 'log.suppressed']]);

    now += 60_000;
    expect(throttle.allow()).toBe(true);
    expect(warn).toHaveBeenCalledTimes(1);
  });
});
