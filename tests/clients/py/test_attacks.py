"""What strangers, members of another office and dismissed ones must not be able to do, with the Python clients."""

import unittest
import uuid

from postgrest.exceptions import APIError
from realtime import RealtimeSubscribeStates as States
from hub import TestHub, wait_until
from test_channels import Room

TABLES = ["offices", "office_members", "agents", "clients", "sessions", "agent_commands", "agent_command_results", "session_asks"]
HOSTILE = [
    "'; drop table public.canary; --",
    '"; drop table public.canary; --',
    "id)) union select word from public.secrets --",
    "(select word from public.secrets limit 1)",
    "*,secrets(*)",
    "$1",
]


class Attacks(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.hub = TestHub().start()
        cls.addClassCleanup(cls.hub.stop)
        cls.hub.sql("create table public.canary (word text); insert into public.canary values ('alive')")

    async def asyncSetUp(self):
        self.clients = []
        self.owner = await self.signed_in()
        self.office = (await self.owner.rpc("create_office", {"p_name": "Target"}).execute()).data["id"]
        self.topic = f"office:{self.office}:commands"
        await self.enqueue("first")

    async def asyncTearDown(self):
        for client in self.clients:
            await client.remove_all_channels()
            await client.realtime.close()

    async def signed_in(self):
        client = await self.hub.person()
        session = await client.auth.get_session()
        await client.realtime.set_auth(session.access_token)
        self.clients.append(client)
        return client

    async def enqueue(self, key):
        args = {"p_office": self.office, "p_kind": "prompt", "p_args": {"text": "secret words"}, "p_key": key}
        return (await self.owner.rpc("enqueue_command", args).execute()).data["id"]

    async def everything(self):
        return [self.hub.sql(f"select to_jsonb(t)::text from public.{table} t order by 1") for table in TABLES]

    async def attackers(self):
        foreigner = await self.signed_in()
        await foreigner.rpc("create_office", {"p_name": "Elsewhere"}).execute()
        stranger = await self.hub.client()
        self.clients.append(stranger)
        return {"a stranger": stranger, "a member of another office": foreigner}

    async def test_nothing_is_read_written_or_called(self):
        attackers = await self.attackers()
        before = await self.everything()
        command = self.hub.sql("select id from public.agent_commands")[0][0]
        calls = {
            "enqueue_command": {"p_office": self.office, "p_kind": "prompt", "p_args": {}, "p_key": "evil"},
            "claim_commands": {"p_office": self.office, "p_client": str(uuid.uuid4())},
            "cancel_command": {"p_command": str(command)},
            "register_client": {"p_office": self.office, "p_client": str(uuid.uuid4()), "p_name": "evil"},
        }
        for who, client in attackers.items():
            for table in TABLES:
                with self.subTest(f"{who}: {table}"):
                    try:
                        answer = await client.table(table).select("*", count="exact").execute()
                        self.assertNotIn(self.office, str(answer.data))
                    except APIError as error:
                        self.assertEqual(error.code, "42501")
                    for asked in (
                        client.table(table).insert({"office_id": self.office}),
                        client.table(table).update({"office_id": self.office}).eq("office_id", self.office),
                        client.table(table).delete().eq("office_id", self.office),
                    ):
                        with self.assertRaises(APIError):
                            await asked.execute()
            for name, args in calls.items():
                with self.subTest(f"{who}: {name}"), self.assertRaises(APIError):
                    await client.rpc(name, args).execute()
        self.assertEqual(await self.everything(), before)

    async def test_the_channel_is_neither_heard_nor_rung(self):
        inside = await Room(self.owner, self.topic, private=True).listen("command", "evil").join()
        outside = []
        for who, client in (await self.attackers()).items():
            with self.subTest(who):
                room = Room(client, self.topic, private=True).listen("command")
                await room.join(States.CHANNEL_ERROR)
                self.assertIn("Unauthorized", str(room.states[0][1]))
                outside.append(room)
                await self.enqueue(who)
        await wait_until("the owner hears both bells", lambda: len(inside.heard) == 2)
        self.assertEqual([room.heard for room in outside], [[], []])
        self.assertTrue(all(message["event"] == "command" for message in inside.heard))

    async def test_who_is_dismissed_loses_the_open_channel_at_once(self):
        leaver = await self.signed_in()
        user = (await leaver.auth.get_user()).user.id
        self.hub.sql(f"insert into public.office_members (office_id, user_id, role) values ('{self.office}', '{user}', 'viewer')")
        room = await Room(leaver, self.topic, private=True).listen("command").join()
        inside = await Room(self.owner, self.topic, private=True).listen("command").join()
        before = await self.enqueue("before")
        self.assertEqual((await room.payloads(1))[0]["id"], before)
        self.hub.sql(f"update public.office_members set revoked_at = now() where user_id = '{user}'")
        await self.enqueue("after")
        await inside.payloads(2)
        await wait_until("its channel is closed", lambda: room.channel.is_closed)
        self.assertEqual(len(room.heard), 1)
        self.assertEqual((await leaver.table("agent_commands").select("id").execute()).data, [])

    async def test_sql_is_text_wherever_it_comes_in(self):
        client = await self.signed_in()
        places = {
            "a table": lambda text: client.table(text).select("*"),
            "a select": lambda text: client.table("catalogue").select(text),
            "a filter's column": lambda text: client.table("catalogue").select("id").eq(text, 1),
            "a filter's value": lambda text: client.table("catalogue").select("id").eq("name", text),
            "a list": lambda text: client.table("catalogue").select("id").in_("name", [text]),
            "a tree": lambda text: client.table("catalogue").select("id").or_(text),
            "an order": lambda text: client.table("catalogue").select("id").order(text),
            "a function": lambda text: client.rpc(text, {}),
            "an argument": lambda text: client.rpc("add", {text: 1}),
            "a row": lambda text: client.table("catalogue").insert({text: text}),
            "a conflict": lambda text: client.table("catalogue").upsert({"id": 1}, on_conflict=text),
        }
        for place, ask in places.items():
            for text in HOSTILE:
                with self.subTest(f"{place}: {text}"):
                    try:
                        answer = await ask(text).execute()
                        self.assertNotIn("hidden", str(answer.data))
                    except APIError as error:
                        self.assertNotEqual(error.code, "XX000")
                        self.assertNotIn("'hidden'", str(error))
        self.assertEqual(self.hub.sql("select word from public.canary"), [["alive"]])
        self.assertEqual(self.hub.sql("select word from public.secrets"), [["hidden"]])


if __name__ == "__main__":
    unittest.main()
