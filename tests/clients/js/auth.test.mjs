/** Accounts and sessions, with auth-js: sign-in, refresh, sign-out and its scopes, administration. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PASSWORD, TestHub } from "./hub.mjs";

let hub;
before(async () => {
  hub = await TestHub.start({ env: { SEMO_HUB_SIGN_UP: "true", SEMO_HUB_ANONYMOUS: "true" } });
});
after(() => hub?.stop());

/** Whether a token still has a session. */
async function lives(session) {
  const { data, error } = await hub.client().auth.getUser(session.access_token);
  // What auth-js makes of `session_not_found`.
  if (error !== null) assert.equal(error.name, "AuthSessionMissingError");
  return data.user !== null;
}

async function refreshed(session) {
  return hub.client().auth.refreshSession({ refresh_token: session.refresh_token });
}

test("an account that a server makes signs in and has the session GoTrue gives", async () => {
  const { data: made, error } = await hub.admin.auth.admin.createUser({
    email: "ADA@example.test", password: PASSWORD, email_confirm: true,
    user_metadata: { name: "Ada" }, app_metadata: { team: "one" },
  });
  assert.equal(error, null);
  assert.equal(made.user.email, "ada@example.test");
  const events = [];
  const client = hub.client();
  client.auth.onAuthStateChange((event) => events.push(event));
  const { data, error: refused } = await client.auth.signInWithPassword({ email: "ada@example.test", password: PASSWORD });
  assert.equal(refused, null);
  assert.equal(data.session.token_type, "bearer");
  assert.equal(data.session.expires_in, 3600);
  assert.ok(Math.abs(data.session.expires_at - Date.now() / 1000 - 3600) < 60);
  assert.equal(data.user.id, made.user.id);
  assert.equal(data.user.role, "authenticated");
  assert.deepEqual(data.user.user_metadata.name, "Ada");
  assert.equal(data.user.app_metadata.team, "one");
  assert.equal(data.user.is_anonymous, false);
  assert.ok(events.includes("SIGNED_IN"));
  const { data: again } = await client.auth.getUser();
  assert.equal(again.user.id, made.user.id);
});

test("getClaims verifies a token with the published keys, without asking the server about the user", async () => {
  const { client, id, email } = await hub.person();
  const { data, error } = await client.auth.getClaims();
  assert.equal(error, null);
  assert.equal(data.header.alg, "ES256");
  assert.equal(data.claims.sub, id);
  assert.equal(data.claims.email, email);
  assert.equal(data.claims.aud, "authenticated");
  assert.equal(data.claims.role, "authenticated");
  assert.equal(data.claims.iss, `${hub.url}/auth/v1`);
  assert.ok(data.claims.session_id);
});

test("a wrong password and an unknown address are refused with the same words", async () => {
  const { email } = await hub.account();
  for (const attempt of [{ email, password: "wrong password" }, { email: "nobody@example.test", password: PASSWORD }]) {
    const { data, error } = await hub.client().auth.signInWithPassword(attempt);
    assert.equal(data.session, null);
    assert.equal(error.status, 400);
    assert.equal(error.code, "invalid_credentials");
    assert.equal(error.message, "Invalid login credentials");
  }
});

test("whoever may sign up is signed in at once, and cannot take an address twice", async () => {
  const client = hub.client();
  const person = { email: "new@example.test", password: PASSWORD, options: { data: { colour: "blue" } } };
  const { data, error } = await client.auth.signUp(person);
  assert.equal(error, null);
  assert.equal((await client.auth.getUser()).data.user.id, data.user.id);
  assert.equal(data.user.user_metadata.colour, "blue");
  assert.equal(data.user.app_metadata.provider, "email");
  const { error: twice } = await hub.client().auth.signUp(person);
  assert.deepEqual([twice.status, twice.code], [422, "user_already_exists"]);
  const { error: weak } = await hub.client().auth.signUp({ email: "weak@example.test", password: "12" });
  assert.deepEqual([weak.status, weak.code], [422, "weak_password"]);
});

test("whoever may come without a name is a person of his own", async () => {
  const client = hub.client();
  const { data, error } = await client.auth.signInAnonymously({ options: { data: { from: "a page" } } });
  assert.equal(error, null);
  assert.equal(data.user.is_anonymous, true);
  assert.equal(data.user.user_metadata.from, "a page");
  assert.equal((await client.rpc("who")).data.id, data.user.id);
  const { data: claims } = await client.auth.getClaims();
  assert.equal(claims.claims.is_anonymous, true);
  const { data: other } = await hub.client().auth.signInAnonymously();
  assert.notEqual(other.user.id, data.user.id);
});

test("a user changes data and password, and the old password is worth nothing", async () => {
  const { client, email, id } = await hub.person();
  const events = [];
  client.auth.onAuthStateChange((event) => events.push(event));
  const { data, error } = await client.auth.updateUser({ data: { colour: "blue" }, password: "another-long-password" });
  assert.equal(error, null);
  assert.equal(data.user.user_metadata.colour, "blue");
  assert.ok(events.includes("USER_UPDATED"));
  const old = await hub.client().auth.signInWithPassword({ email, password: PASSWORD });
  assert.equal(old.error.code, "invalid_credentials");
  const now = await hub.client().auth.signInWithPassword({ email, password: "another-long-password" });
  assert.equal(now.data.user.id, id);
});

test("a refresh gives a new pair of the same session", async () => {
  const { client, session } = await hub.person();
  const { data, error } = await client.auth.refreshSession();
  assert.equal(error, null);
  assert.notEqual(data.session.refresh_token, session.refresh_token);
  const claims = async (token) => (await client.auth.getClaims(token)).data.claims;
  assert.equal((await claims(data.session.access_token)).session_id, (await claims(session.access_token)).session_id);
});

test("refreshes at the same time are one request, and all get the same session", async () => {
  const { client } = await hub.person();
  const answers = await Promise.all([client.auth.refreshSession(), client.auth.refreshSession(), client.auth.refreshSession()]);
  assert.deepEqual(answers.map(({ error }) => error), [null, null, null]);
  assert.equal(new Set(answers.map(({ data }) => data.session.refresh_token)).size, 1);
});

test("an old refresh token, used again after its child was used, ends the whole session", async () => {
  const { session } = await hub.person();
  const { data: second } = await refreshed(session);
  const { data: third } = await refreshed(second.session);
  await hub.sql("update auth.refresh_tokens set updated_at = now() - interval '1 minute', used_at = now() - interval '1 minute' where revoked");
  const { error } = await refreshed(session);
  assert.equal(error.status, 400);
  assert.equal(error.code, "refresh_token_already_used");
  const { error: gone } = await refreshed(third.session);
  assert.equal(gone.status, 400);
});

test("a refresh token that never was is not found", async () => {
  const { error } = await refreshed({ refresh_token: "aaaaaaaaaaaa" });
  assert.equal(error.status, 400);
  assert.equal(error.code, "refresh_token_not_found");
});

test("a session that was kept is taken up again, and one that ran out is refreshed on the way", async () => {
  const { session, id } = await hub.person();
  const client = hub.client();
  const { data, error } = await client.auth.setSession(session);
  assert.equal(error, null);
  assert.equal(data.user.id, id);
  const old = hub.token({ sub: id }, -60);
  const later = await hub.client().auth.setSession({ access_token: old, refresh_token: session.refresh_token });
  assert.equal(later.error, null);
  assert.notEqual(later.data.session.access_token, old);
});

test("signing out ends this session, all sessions, or the other ones, as its scope says", async () => {
  const { email } = await hub.account();
  const begin = async () => {
    const client = hub.client();
    const { data } = await client.auth.signInWithPassword({ email, password: PASSWORD });
    return { client, session: data.session };
  };
  const [a, b, c] = [await begin(), await begin(), await begin()];
  assert.equal((await a.client.auth.signOut({ scope: "local" })).error, null);
  assert.deepEqual(await Promise.all([lives(a.session), lives(b.session), lives(c.session)]), [false, true, true]);
  assert.equal((await b.client.auth.signOut({ scope: "others" })).error, null);
  assert.deepEqual(await Promise.all([lives(b.session), lives(c.session)]), [true, false]);
  const d = await begin();
  const { data: none } = await d.client.auth.getSession();
  assert.ok(none.session);
  assert.equal((await d.client.auth.signOut()).error, null);
  assert.equal((await d.client.auth.getSession()).data.session, null);
  assert.deepEqual(await Promise.all([lives(b.session), lives(d.session)]), [false, false]);
  assert.equal((await refreshed(d.session)).error.status, 400);
});

test("an administrator lists, reads, changes, bans and deletes users", async () => {
  const { admin } = hub.admin.auth;
  const { id, email } = await hub.account("managed");
  const { data: page, error } = await admin.listUsers({ page: 1, perPage: 2 });
  assert.equal(error, null);
  assert.equal(page.users.length, 2);
  assert.ok(page.total >= 2);
  assert.equal((await admin.getUserById(id)).data.user.email, email);
  const { data: changed } = await admin.updateUserById(id, { app_metadata: { plan: "large" }, ban_duration: "1h" });
  assert.equal(changed.user.app_metadata.plan, "large");
  const banned = await hub.client().auth.signInWithPassword({ email, password: PASSWORD });
  assert.equal(banned.error.code, "user_banned");
  await admin.updateUserById(id, { ban_duration: "none" });
  const { data: back } = await hub.client().auth.signInWithPassword({ email, password: PASSWORD });
  assert.equal((await admin.signOut(back.session.access_token, "global")).error, null);
  assert.equal(await lives(back.session), false);
  assert.equal((await admin.deleteUser(id)).error, null);
  assert.equal((await admin.getUserById(id)).error.code, "user_not_found");
  const taken = await admin.createUser({ email: (await hub.account()).email, password: PASSWORD });
  assert.deepEqual([taken.error.status, taken.error.code], [422, "email_exists"]);
});

test("nobody administers with the publishable key or as a user", async () => {
  const { session } = await hub.person();
  for (const client of [hub.client(), hub.client({ key: session.access_token })]) {
    const { data, error } = await client.auth.admin.listUsers();
    assert.deepEqual(data.users, []);
    assert.ok([401, 403].includes(error.status), `${error.status}`);
  }
});
