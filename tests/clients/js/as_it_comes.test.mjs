/** A hub without any setting lets nobody in but whom its owner made, and has no public rooms. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PASSWORD, TestHub } from "./hub.mjs";
import { join } from "./rooms.mjs";

let hub;
before(async () => {
  hub = await TestHub.start();
});
after(() => hub?.stop());

test("nobody signs up or comes without a name", async () => {
  const { data, error } = await hub.client().auth.signUp({ email: "new@example.test", password: PASSWORD });
  assert.equal(data.session, null);
  assert.deepEqual([error.status, error.code], [422, "signup_disabled"]);
  const { error: anonymous } = await hub.client().auth.signInAnonymously();
  assert.deepEqual([anonymous.status, anonymous.code], [422, "anonymous_provider_disabled"]);
});

for (const vsn of ["1.0.0", "2.0.0"]) {
  test(`${vsn}: there are only private channels, also for who is signed in`, async () => {
    const { client } = await hub.person({ vsn });
    for (const one of [client, hub.client({ vsn })]) {
      const refused = await join(one, "open:public", { expected: "CHANNEL_ERROR" });
      assert.match(refused.statuses[0][1], /PrivateOnly: This project only allows private channels/);
      await one.removeAllChannels();
    }
    const inside = await join(client, "open:private", { config: { private: true } });
    assert.equal(inside.statuses[0][0], "SUBSCRIBED");
  });
}
