import { LOCKS } from '../../src/database/advisory-locks.js';

it('uses another lock for each purpose, so that none waits for an unrelated one', () => {
  const numbers = Object.values(LOCKS);
  expect(new Set(numbers).size).toBe(numbers.length);
});
