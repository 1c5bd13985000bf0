import { describe, expect, it } from "vitest";

import { BackendError } from "../backend";
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

  it("leads to the field that the core names, and nowhere when it names none that is there", () => {
    const refused = (field: string | null) => fieldOf(new BackendError("invalid", "the password is wrong", "", field));
    expect(refused("password")).toBe("password");
    expect(refused("url")).toBe("url");
    expect(refused("shoe_size")).toBeNull();
    expect(refused(null)).toBeNull();
    expect(fieldOf(null)).toBeNull();
  });
});
