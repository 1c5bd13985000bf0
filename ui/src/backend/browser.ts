/** The UI in a browser: the core served this page, and its key came behind the `#` of the address. */

import { KEY_RENEWED, BackendError } from "./errors";
import type { CoreAddress, Host } from "./host";
import { provesItself } from "./proof";

const TOKEN_KEY = "semo.token";

export function browserHost(): Host {
  return {
    kind: "browser",
    address: () => addressOf(window.location, window.sessionStorage),
    onNewAddress: (heard) => window.addEventListener("hashchange", heard),
    openExternal: (url) => {
      window.open(url, "_blank", "noopener,noreferrer");
    },
    showWaiting(title, count) {
      document.title = title;
      // Only where the page was installed as an app; elsewhere the title says it.
      navigator.setAppBadge?.(count).catch(() => {});
    },
  };
}

/**
 * Takes the key from the fragment once, keeps it for this tab and takes it out of the address bar, so that it is
 * neither bookmarked nor shown over a shoulder. A key that was kept goes only to a core that proves to know it: over a
 * restart the port may have become another program's.
 */
async function addressOf(location: Location, storage: Storage): Promise<CoreAddress> {
  const given = tokenIn(location.hash);
  if (given !== null) {
    storage.setItem(TOKEN_KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
    return { url: location.origin, token: given };
  }
  const token = storage.getItem(TOKEN_KEY);
  if (token === null) {
    throw new BackendError(
      "no_token",
      "This page was opened without its key.",
      "Open the whole address that `semo up` and `semo status` print, with the part behind the #.",
    );
  }
  const core = { url: location.origin, token };
  if (!(await provesItself(core))) throw KEY_RENEWED;
  return core;
}

/** The token in a fragment such as `#token=abc`, or null. */
export function tokenIn(fragment: string): string | null {
  const token = new URLSearchParams(fragment.replace(/^#/, "")).get("token");
  return token !== null && /^[\w.~-]{1,512}$/.test(token) ? token : null;
}
