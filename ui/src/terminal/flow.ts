/**
 * Flow control of a terminal stream. xterm.js takes everything it is given and draws it later; the core sends on only
 * when it hears that the bytes are on the screen. One acknowledgement stands for many writes.
 */

/** Acknowledge when this many bytes were drawn since the last acknowledgement. */
export const ACK_BYTES = 100_000;

export class DrawnBytes {
  #pending = 0;

  constructor(private readonly acknowledge: (bytes: number) => void) {}

  drawn(bytes: number): void {
    this.#pending += bytes;
    if (this.#pending < ACK_BYTES) return;
    const acknowledged = this.#pending;
    this.#pending = 0;
    this.acknowledge(acknowledged);
  }

  /** A snapshot begins a new count on both sides. */
  restart(): void {
    this.#pending = 0;
  }
}
