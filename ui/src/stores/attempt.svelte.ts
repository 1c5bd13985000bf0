/** What a person asked for in one place of the window: whether it is under way, and what went wrong with it. */

import { knownError, type BackendError } from "../backend";

export class Attempt {
  busy = $state(false);
  failure = $state.raw<BackendError | null>(null);

  /** One at a time: what is asked meanwhile is not done. True when it went well. */
  async run(work: () => Promise<unknown>): Promise<boolean> {
    if (this.busy) return false;
    this.busy = true;
    this.failure = null;
    try {
      await work();
    } catch (error) {
      this.failure = knownError(error);
    }
    this.busy = false;
    return this.failure === null;
  }
}
