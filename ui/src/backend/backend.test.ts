import { describe, expect, test } from "vitest";

import { tokenIn } from "./browser";
import { BackendError, errorFrom } from "./errors";
import { proofOf } from "./proof";
import { parseFrame, retryDelay } from "./sockets";

test("the key is taken from the fragment, and nothing else is taken for one", () => {
  expect(tokenIn("#token=abc123")).toBe("abc123");
  expect(tokenIn("#x=1&token=abc")).toBe("abc");
  for (const fragment of ["", "#", "#token=", "#token=a b", "#token=<script>", `#token=${"x".repeat(600)}`]) {
    expect(tokenIn(fragment), fragment).toBeNull();
  }
});

test("what the page expects as proof is what the core computes", async () => {
  // The same key, port and question as in the core's own test.
  expect(await proofOf("07".repeat(32), "4100", "aa")).toBe(
    "6f1a1e7516935c3d63fc0b68390fb130c3fd8a8410053f05f2141d53c1436cb1",
  );
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
