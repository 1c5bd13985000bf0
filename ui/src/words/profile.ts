/** Which hub this machine belongs to, in words: the choices a person has, and what keeps a sign-in. */

import type { Profile } from "../backend";

export function hostOf(url: string): string {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}

/** What the profile is called where there is little room. */
export function profileName(profile: Profile): string {
  return profile.kind === "this_machine" ? "This machine" : hostOf(profile.url);
}

/** Where the sign-in is kept; empty while nobody is signed in. */
export function keptWords(profile: Profile): string {
  switch (profile.kept) {
    case "keychain":
      return "The sign-in is kept in this computer's keychain.";
    case "file":
      return "The sign-in is kept in a file that only you can read.";
    case null:
      return "";
  }
}

/** What is wrong with a key before anybody is asked; null when nothing is. */
export function keyFault(key: string): string | null {
  if (key.trim().startsWith("sb_secret_")) {
    return "This is a secret key. It must never be on a workstation: take the publishable one, which begins with sb_publishable_.";
  }
  return null;
}

export type Field = "url" | "key" | "email" | "password";

/** Where the person has to look again, by what the core said. */
export function fieldOf(code: string, message: string): Field | null {
  if (code === "forbidden") return /password is wrong/i.test(message) ? "password" : null;
  if (code !== "invalid" && code !== "unreachable") return null;
  if (/publishable key/i.test(message)) return "key";
  if (/project URL|not encrypted|no Supabase project|cannot be reached/i.test(message)) return "url";
  return null;
}
