/**
 * Finds the names that an object of a JSON text has more than once, as paths from the outermost
 * object. `JSON.parse` uses the last one silently. The text is valid JSON, so a string before a
 * colon is a name.
 */
export function* repeatedNames(json: string): Generator<string[]> {
  const objects: { names: Set<string>; name: string }[] = [];
  for (const [match, , colon] of json.matchAll(/("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}]/g)) {
    if (match === '{') objects.push({ names: new Set(), name: '' });
    if (match === '}') objects.pop();
    const object = objects.at(-1);
    if (colon === undefined || !object) continue;
    object.name = String(JSON.parse(match.slice(0, -colon.length)));
    if (object.names.has(object.name)) yield objects.map(({ name }) => name);
    object.names.add(object.name);
  }
}
