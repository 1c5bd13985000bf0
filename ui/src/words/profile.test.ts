import { describe, expect, it } from "vitest";

import { fieldOf, keptWords, keyFault, profileName } from "./profile";

const team = {
  name: "https://abc.supabase.co",
  kind: "supabase",
  url: "https://abc.supabase.co",
  kept: "keychain",
  team: null,
  changing: false,
} as const;

describe("the profile", () => {
  it("is named by its host, or as this machine", () => {
    expect(profileName(team)).toBe("abc.supabase.co");
    expect(profileName({ ...team, kind: "this_machine" })).toBe("This machine");
    expect(profileName({ ...team, url: "not an address" })).toBe("not an address");
  });

  it("says where a sign-in is kept, and nothing where there is none", () => {
    expect(keptWords(team)).toContain("keychain");
    expect(keptWords({ ...team, kept: "file" })).toContain("only you can read");
    expect(keptWords({ ...team, kept: null })).toBe("");
  });

  it("refuses a secret key before it leaves the form", () => {
    expect(keyFault(" sb_secret_abc")).toContain("secret key");
    expect(keyFault("sb_publishable_abc")).toBeNull();
  });

  it("leads to the field that has to be looked at again", () => {
    expect(fieldOf("forbidden", "the e-mail address or the password is wrong")).toBe("password");
    expect(fieldOf("forbidden", "this account is banned from the project")).toBeNull();
    expect(fieldOf("invalid", "https://a.b does not take this publishable key")).toBe("key");
    expect(fieldOf("invalid", 'the project URL "x" cannot be used: relative URL without a base')).toBe("url");
    expect(fieldOf("unreachable", "https://a.b cannot be reached: connection refused")).toBe("url");
    expect(fieldOf("unreachable", "https://a.b has had too many tries to sign in")).toBeNull();
    expect(fieldOf("conflict", "1 command is of office Team in work here")).toBeNull();
  });
});
