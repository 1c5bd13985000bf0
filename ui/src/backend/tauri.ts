/** The UI in the desktop window: the app started the core inside and knows where it is. */

import { invoke } from "@tauri-apps/api/core";
import { getCurrentWindow } from "@tauri-apps/api/window";

import { BackendError, errorFrom } from "./errors";
import { StillStarting, type CoreAddress, type Host } from "./host";

export function tauriHost(): Host {
  return {
    kind: "window",
    address,
    openExternal: (url) => {
      invoke("open_external", { url }).catch((error: unknown) => console.error("open_external", error));
    },
    showWaiting(title, count) {
      document.title = title;
      const frame = getCurrentWindow();
      // Not every desktop has badges, and a title is no reason to fail.
      frame.setTitle(title).catch(() => {});
      frame.setBadgeCount(count === 0 ? undefined : count).catch(() => {});
    },
  };
}

async function address(): Promise<CoreAddress> {
  let answer: unknown;
  try {
    answer = await invoke("backend");
  } catch (error) {
    answer = error;
  }
  if (typeof answer === "object" && answer !== null) {
    const { url, token, state } = answer as Record<string, unknown>;
    if (typeof url === "string" && typeof token === "string") return { url: url.replace(/\/$/, ""), token };
    if (state === "starting") throw new StillStarting("the core is starting");
  }
  throw errorFrom(
    answer,
    new BackendError("no_core", "The app could not start its core.", "Close the app and open it again."),
  );
}
