/** Light or dark: as the system has it, or as the person chose; the choice is remembered on this machine. */

export type ThemeChoice = "system" | "light" | "dark";

const STORAGE_KEY = "semo.theme";
const NEXT: Record<ThemeChoice, ThemeChoice> = { system: "light", light: "dark", dark: "system" };

class ThemeStore {
  choice = $state<ThemeChoice>("system");
  #systemDark = $state(false);
  readonly dark = $derived(this.choice === "system" ? this.#systemDark : this.choice === "dark");

  /** Called once, before the first paint. */
  start(): void {
    const system = window.matchMedia("(prefers-color-scheme: dark)");
    this.#systemDark = system.matches;
    this.choice = remembered();
    this.#show();
    system.addEventListener("change", (event) => {
      this.#systemDark = event.matches;
      this.#show();
    });
  }

  toggle(): void {
    this.choice = NEXT[this.choice];
    try {
      localStorage.setItem(STORAGE_KEY, this.choice);
    } catch {
      // A browser that keeps nothing still changes its colours.
    }
    this.#show();
  }

  #show(): void {
    document.documentElement.dataset["theme"] = this.dark ? "dark" : "light";
  }
}

function remembered(): ThemeChoice {
  try {
    const kept = localStorage.getItem(STORAGE_KEY);
    return kept === "light" || kept === "dark" ? kept : "system";
  } catch {
    return "system";
  }
}

export const theme = new ThemeStore();
