/** The time of the moment, for “4 min ago”. One timer for the whole window, asleep while nobody sees it. */

const TICK_MS = 1_000;

class Now {
  ms = $state(Date.now());

  start(): void {
    let timer: ReturnType<typeof setInterval> | null = null;
    const follow = () => {
      if (timer !== null) clearInterval(timer);
      timer = null;
      if (document.visibilityState !== "visible") return;
      this.ms = Date.now();
      timer = setInterval(() => (this.ms = Date.now()), TICK_MS);
    };
    document.addEventListener("visibilitychange", follow);
    follow();
  }
}

export const now = new Now();
