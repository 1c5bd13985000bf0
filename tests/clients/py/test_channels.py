"""Channels, with realtime-py: broadcast, private channels, presence, row changes, replay, a restart of the hub."""

import time
import unittest

from realtime import RealtimeSubscribeStates as States
from hub import TestHub, wait_until


class Room:
    """A channel that is joined, and what it heard."""

    def __init__(self, client, name, private=False, **config):
        params = {"config": {"broadcast": {"ack": False, "self": False}, "presence": {"key": "", "enabled": False}, "private": private, **config}}
        self.channel = client.channel(name, params)
        self.heard, self.changes, self.system, self.states = [], [], [], []
        self.channel.on_system(self.system.append)

    def listen(self, *events):
        for event in events:
            self.channel.on_broadcast(event, self.heard.append)
        return self

    def follow(self, event, table, filter=None):
        self.channel.on_postgres_changes(event, self.changes.append, table=table, schema="public", filter=filter)
        return self

    async def join(self, state=States.SUBSCRIBED):
        await self.channel.subscribe(lambda got, error: self.states.append((got, error)))
        await wait_until(f"it is {state}", lambda: any(got == state for got, _ in self.states))
        return self

    async def payloads(self, count):
        await wait_until(f"{count} messages are heard", lambda: len(self.heard) >= count)
        return [message["payload"] for message in self.heard]

    async def followed(self):
        def ok():
            return [one for one in map(str, self.system) if "Subscribed to PostgreSQL" in one]

        await wait_until("the database is followed", ok)
        return self


class Channels(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.hub = TestHub(SEMO_HUB_PUBLIC_CHANNELS="true").start()
        cls.addClassCleanup(cls.hub.stop)

    async def asyncSetUp(self):
        self.clients = []

    async def asyncTearDown(self):
        for client in self.clients:
            await client.remove_all_channels()
            await client.realtime.close()

    async def somebody(self, signed_in=True):
        client = await (self.hub.person() if signed_in else self.hub.client())
        if signed_in:
            session = await client.auth.get_session()
            await client.realtime.set_auth(session.access_token)
        self.clients.append(client)
        return client

    async def test_others_hear_a_broadcast_and_the_sender_when_it_asks_for_that(self):
        own = {"broadcast": {"ack": True, "self": True}}
        loud = await Room(await self.somebody(False), "py-room", **own).listen("hi").join()
        quiet = await Room(await self.somebody(False), "py-room").listen("hi").join()
        await loud.channel.send_broadcast("hi", {"a": 1})
        self.assertEqual(await loud.payloads(1), [{"a": 1}])
        self.assertEqual(await quiet.payloads(1), [{"a": 1}])

    async def test_a_private_channel_is_for_those_whom_a_policy_lets_in(self):
        client = await self.somebody()
        inside = await Room(client, "open:py", private=True).listen("word").join()
        self.hub.sql("select realtime.send('{\"from\": \"sql\"}', 'word', 'open:py', true)")
        self.assertEqual((await inside.payloads(1))[0]["from"], "sql")
        stranger = Room(await self.somebody(False), "open:py", private=True)
        await stranger.join(States.CHANNEL_ERROR)
        self.assertIn("Unauthorized", str(stranger.states[0][1]))

    async def test_inserts_updates_and_deletes_of_two_tables_are_told(self):
        client = await self.somebody()
        room = Room(client, "py-changes")
        room.follow("*", "todos").follow("INSERT", "messages", "title=eq.wanted")
        await room.join()
        await room.followed()
        row = (await client.table("todos").insert({"task": "a"}).execute()).data[0]
        await wait_until("the row is told", lambda: len(room.changes) == 1)
        await client.table("todos").update({"task": "b"}).eq("id", row["id"]).execute()
        await wait_until("its change is told", lambda: len(room.changes) == 2)
        await client.table("todos").delete().eq("id", row["id"]).execute()
        await wait_until("its end is told", lambda: len(room.changes) == 3)
        await client.table("messages").insert([{"title": "other"}, {"title": "wanted"}]).execute()
        await wait_until("the other table is told", lambda: len(room.changes) == 4)
        data = [change["data"] for change in room.changes]
        self.assertEqual([str(one["type"]).split(".")[-1].upper() for one in data], ["INSERT", "UPDATE", "DELETE", "INSERT"])
        self.assertEqual(data[1]["record"]["task"], "b")
        self.assertEqual(data[2]["old_record"]["id"], row["id"])
        self.assertEqual((data[3]["table"], data[3]["record"]["title"]), ("messages", "wanted"))

    async def test_a_room_knows_who_is_in_it_and_who_left(self):
        def enter(client, key):
            room = Room(client, "py-presence", presence={"key": key, "enabled": True})
            room.channel.on_presence_sync(lambda: None)
            return room.join()

        ada = await enter(await self.somebody(False), "ada")
        await ada.channel.track({"at": "door"})
        ben = await enter(await self.somebody(False), "ben")
        await wait_until("Ben sees Ada", lambda: ben.channel.presence_state().get("ada", [{}])[0].get("at") == "door")
        await ben.channel.track({"at": "table"})
        await wait_until("Ada sees Ben", lambda: "ben" in ada.channel.presence_state())
        await ben.channel.untrack()
        await wait_until("Ben is gone", lambda: "ben" not in ada.channel.presence_state())

    async def test_who_comes_later_is_given_the_newest_messages_again(self):
        for n in (1, 2, 3):
            self.hub.sql(f"select realtime.send('{{\"n\": {n}}}', 'kept', 'open:replay', true)")
        since = int(time.time() * 1000) - 60_000
        replay = {"broadcast": {"ack": False, "self": False, "replay": {"since": since, "limit": 2}}}
        late = await Room(await self.somebody(), "open:replay", private=True, **replay).listen("kept").join()
        self.assertEqual([payload["n"] for payload in await late.payloads(2)], [2, 3])

    async def test_after_a_restart_of_the_hub_the_channel_is_back(self):
        client = await self.somebody()
        room = await Room(client, "open:restart", private=True).listen("after").join()
        self.hub.end()
        self.hub.run()
        await wait_until("it is joined again", lambda: sum(got == States.SUBSCRIBED for got, _ in room.states) >= 2, 45)
        self.hub.sql("select realtime.send('{\"n\": 1}', 'after', 'open:restart', true)")
        self.assertEqual((await room.payloads(1))[0]["n"], 1)


if __name__ == "__main__":
    unittest.main()
