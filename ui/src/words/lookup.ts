/** The words for a name that came from outside, or undefined; a name such as `toString` is in no table. */
export function wordsFor(table: Readonly<Record<string, string>>, name: string): string | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}
