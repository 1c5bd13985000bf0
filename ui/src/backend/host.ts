/**
 * The two places the UI lives in. A host knows where the core is and how to open a link outside; nothing else in
 * the UI may differ between the window and the browser.
 */

/** Where the core listens, and the key of its API. */
export interface CoreAddress {
  /** `http://host:port`, without a slash at the end. */
  url: string;
  token: string;
}

/** The core is being started; ask again. */
export class StillStarting extends Error {}

export interface Host {
  readonly kind: "window" | "browser";
  /** Throws `StillStarting`, or a `BackendError` that says what the person can do. */
  address(): Promise<CoreAddress>;
  /** `heard` is called when the person has given the page another key. */
  onNewAddress?(heard: () => void): void;
  /** Opens an http(s) link in the person's browser. */
  openExternal(url: string): void;
  /** Tells outside the page, too, that `count` agents wait for the person; 0 takes it back. */
  showWaiting(title: string, count: number): void;
}
