/** The pattern of LIKE for texts that contain this one, in which no character means anything else. */
export function likePattern(text: string): string {
  return `%${text.replaceAll(/[\\%_]/g, (character) => `\\${character}`)}%`;
}
