import { describe, expect, test } from "vitest";

import { tokenIn } from "./browser";
import { BackendError, errorFrom } from "./errors";
import { parseFrame, retryDelay } from "./sockets";

test("the key is taken from the fragment, and nothing else is taken for one", () => {
  expect(tokenIn("#token=abc123")).toBe("abc123");
  expect(tokenIn("#x=1&token=abc")).toBe("abc");
  for (const fragment of ["", "#", "#token=", "#token=a b", "#token=<script>", `#token=${"x".repeat(600)}`]) {
    expect(tokenIn(fragment), fragment).toBeNull();
  }
});

describe("waiting before the next try", () => {
  test("grows, and ends at five seconds", () => {
    const waits = [0, 1, 2, 3, 4, 5, 50].map((failures) => retryDelay(failures, 1));
    expect(waits).toEqual([250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
  });

  test("is spread, so that many windows do not knock together", () => {
    expect(retryDelay(4, 0)).toBe(2_000);
    expect(retryDelay(4, 0.5)).toBe(3_000);
  });
});

test("a frame that is no JSON object is dropped", () => {
  expect(parseFrame('{"type":"state"}')).toEqual({ type: "state" });
  for (const data of ["", "nonsense", "1", "null", new ArrayBuffer(2), undefined]) expect(parseFrame(data)).toBeNull();
});

test("an error keeps the core's words, and a foreign answer gets ours", () => {
  const otherwise = new BackendError("rejected", "it was refused", "try again");
  const known = errorFrom({ code: "conflict", message: "no session is free", hint: "end one" }, otherwise);
  expect([known.code, known.message, known.hint]).toEqual(["conflict", "no session is free", "end one"]);
  for (const body of [null, 7, {}, { message: 7 }, { message: "" }, []]) expect(errorFrom(body, otherwise)).toBe(otherwise);
  expect(errorFrom("plain words", otherwise).message).toBe("plain words");
});
