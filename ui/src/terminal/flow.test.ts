import { expect, test } from "vitest";

import { ACK_BYTES, DrawnBytes } from "./flow";

test("drawn bytes are acknowledged in big steps and none is lost or counted twice", () => {
  const acknowledged: number[] = [];
  const drawn = new DrawnBytes((bytes) => acknowledged.push(bytes));
  for (let i = 0; i < 1_000; i += 1) drawn.drawn(777);
  const total = acknowledged.reduce((sum, bytes) => sum + bytes, 0);
  expect(acknowledged.every((bytes) => bytes >= ACK_BYTES)).toBe(true);
  expect(777_000 - total).toBeLessThan(ACK_BYTES);
  expect(acknowledged.length).toBe(7);
});

test("a snapshot begins a new count", () => {
  const acknowledged: number[] = [];
  const drawn = new DrawnBytes((bytes) => acknowledged.push(bytes));
  drawn.drawn(ACK_BYTES - 1);
  drawn.restart();
  drawn.drawn(1);
  expect(acknowledged).toEqual([]);
});
