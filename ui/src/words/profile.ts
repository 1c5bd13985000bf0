/** Which hub this machine belongs to, in words: the choices a person has, and what keeps a sign-in. */

import type { BackendError, Profile, SignInField } from "../backend";

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

const FIELDS: readonly SignInField[] = ["url", "key", "email", "password"];

/** Where the person has to look again; null when that is none of these, or nowhere in the form. */
export function fieldOf(error: BackendError | null): SignInField | null {
  return FIELDS.find((field) => field === error?.field) ?? null;
}
