/** Realtime channels of the official client, as a story needs them: what they heard, and waiting for it. */

import { waitUntil } from "./wait.mjs";

/** A channel that is joined, and everything it heard. `listen` adds listeners before the join. */
export async function join(client, name, { config = {}, listen = () => {}, changes = [], expected = "SUBSCRIBED" } = {}) {
  await client.realtime.setAuth(); // else the first join may go without the token of the session
  const channel = client.channel(name, { config });
  const room = { channel, client, broadcasts: [], changes: [], system: [], presence: [], statuses: [] };
  channel.on("broadcast", { event: "*" }, (message) => room.broadcasts.push(message));
  channel.on("system", {}, (message) => room.system.push(message));
  for (const filter of changes) channel.on("postgres_changes", filter, (change) => room.changes.push({ ...change, heardBy: filter }));
  if (config.presence !== undefined) {
    for (const event of ["sync", "join", "leave"]) channel.on("presence", { event }, (seen) => room.presence.push({ ...seen, event }));
  }
  listen(channel, room);
  channel.subscribe((status, error) => room.statuses.push([status, error?.message]));
  await waitUntil(`${name} is ${expected}`, () => room.statuses.some(([status]) => status === expected));
  if (changes.length > 0 && expected === "SUBSCRIBED") {
    await waitUntil(`${name} follows the database`, () =>
      room.system.some(({ extension, status }) => extension === "postgres_changes" && status === "ok"),
    );
  }
  return room;
}

/** What a room heard under one event. */
export function heard(room, event) {
  return room.broadcasts.filter((message) => message.event === event).map(({ payload }) => payload);
}

/** Waits until the room heard `count` messages of the event, and gives their payloads. */
export async function hears(room, event, count = 1) {
  await waitUntil(`${room.channel.topic} hears ${count} × ${event}`, () => heard(room, event).length >= count);
  return heard(room, event);
}

/** Waits for row changes, and gives them as `[type, new, old]`. */
export async function sees(room, count) {
  await waitUntil(`${room.channel.topic} sees ${count} changes`, () => room.changes.length >= count);
  return room.changes.map((change) => [change.eventType, change.new, change.old]);
}
