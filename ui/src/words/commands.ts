/** What a command's status is called in front of people. */

import type { CommandView, Session } from "../backend";
import type { Tone } from "./tone";

export interface Standing {
  label: string;
  tone: Tone;
  /** One sentence for the tooltip and for screen readers. */
  meaning: string;
}

/** An outcome is shown as it is: `unconfirmed` is a result of its own and never looks like `done`. */
export function standingOf(
  command: Pick<CommandView, "status" | "outcome">,
  session: Pick<Session, "state"> | null = null,
): Standing {
  if (command.status === "running" && session?.state.state === "awaiting_person") {
    return { label: "Waits for you", tone: "attention", meaning: "The agent asks something only a person may answer." };
  }
  switch (command.status) {
    case "queued":
      return { label: "Queued", tone: "quiet", meaning: "Waits for a client to take it." };
    case "claimed":
      return { label: "Taken", tone: "progress", meaning: "A client took it and prepares the session." };
    case "running":
      return { label: "Running", tone: "progress", meaning: "The agent works on it." };
    case "waiting":
      return { label: "In line", tone: "quiet", meaning: "Waits for a session that is free, or for room for a new one." };
    case "reporting":
      return { label: "Reporting", tone: "progress", meaning: "It ended; the result is on its way to the office." };
    case "cancelled":
      return cancelledStanding(command);
    case "expired":
      return { label: "Expired", tone: "quiet", meaning: "Nobody took it in time." };
    case "dead":
      return { label: "Given up", tone: "bad", meaning: "Whoever took it has not reported an end, and nobody will try it again." };
    case "failed":
      return { label: "Failed", tone: "bad", meaning: "It failed; the reason stands with it." };
    case "unconfirmed":
      return UNCONFIRMED;
    case "succeeded":
      return succeededStanding(command.outcome);
  }
}

const UNCONFIRMED: Standing = {
  label: "Unconfirmed",
  tone: "unsure",
  meaning: "The agent stopped, but a required sign is missing or two signs disagree.",
};

/** Only a workstation's own result says that nothing runs any more; the office alone knows of the wish. */
function cancelledStanding({ outcome }: Pick<CommandView, "outcome">): Standing {
  const meaning =
    outcome === "cancelled"
      ? "It was cancelled before it began, or stopped on request; nothing of it runs, that is proven."
      : "It was cancelled. No workstation has reported about it: if one had begun it, what became of it is not known.";
  return { label: "Cancelled", tone: "quiet", meaning };
}

/** What `succeeded` means depends on the outcome; one that is not known here is never called done. */
function succeededStanding(outcome: CommandView["outcome"]): Standing {
  switch (outcome) {
    case "done":
      return { label: "Done", tone: "good", meaning: "The agent finished, and the sign it was asked for is there." };
    case "unconfirmed":
      return UNCONFIRMED;
    case "failed":
      return { label: "Failed", tone: "bad", meaning: "It was tried and failed." };
    case "cancelled":
      return cancelledStanding({ outcome });
    case "ok":
    case null:
      return { label: "OK", tone: "good", meaning: "It was carried out." };
    default:
      return { label: outcome, tone: "unsure", meaning: "An outcome this window does not know." };
  }
}

/** Whether nothing more will happen to it. */
export function isOver(command: Pick<CommandView, "status">): boolean {
  switch (command.status) {
    case "queued":
    case "claimed":
    case "running":
    case "waiting":
    case "reporting":
      return false;
    case "succeeded":
    case "unconfirmed":
    case "failed":
    case "cancelled":
    case "expired":
    case "dead":
      return true;
  }
}

/** Whether asking to stop it still makes sense. */
export function isCancellable(command: Pick<CommandView, "status">): boolean {
  return !isOver(command) && command.status !== "reporting";
}

/** The agent a command is for. What is sent to a session names no agent: then it is the one of that session. */
export function agentIdOf(
  command: Pick<CommandView, "agent_id" | "session_id">,
  owners: ReadonlyMap<string, string>,
): string | null {
  if (command.agent_id !== null) return command.agent_id;
  return command.session_id === null ? null : (owners.get(command.session_id) ?? null);
}
