"""Accounts, tables and functions, with supabase-py."""

import unittest

from postgrest.exceptions import APIError
from supabase import AuthApiError

from hub import PASSWORD, TestHub


class Data(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.hub = TestHub(SEMO_HUB_SIGN_UP="true", SEMO_HUB_ANONYMOUS="true").start()
        cls.addClassCleanup(cls.hub.stop)

    async def test_a_person_signs_in_refreshes_changes_and_signs_out(self):
        email, id = await self.hub.account()
        client = await self.hub.client()
        answer = await client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
        self.assertEqual(answer.user.id, id)
        self.assertEqual((await client.auth.get_user()).user.email, email)
        again = await client.auth.refresh_session()
        self.assertNotEqual(again.session.refresh_token, answer.session.refresh_token)
        changed = await client.auth.update_user({"data": {"colour": "blue"}})
        self.assertEqual(changed.user.user_metadata["colour"], "blue")
        claims = await client.auth.get_claims()
        self.assertEqual(claims["claims"]["sub"], id)
        token = again.session.refresh_token
        await client.auth.sign_out()
        self.assertIsNone(await client.auth.get_session())
        with self.assertRaises(AuthApiError) as refused:
            await client.auth.refresh_session(token)
        self.assertEqual(refused.exception.status, 400)

    async def test_signing_out_the_others_leaves_this_session(self):
        email, _ = await self.hub.account()
        first, second = await self.hub.client(), await self.hub.client()
        for client in (first, second):
            await client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
        await first.auth.sign_out({"scope": "others"})
        self.assertEqual((await first.auth.get_user()).user.email, email)
        with self.assertRaises(AuthApiError):
            await second.auth.get_user()

    async def test_sign_up_and_coming_without_a_name(self):
        client = await self.hub.client()
        answer = await client.auth.sign_up({"email": "new-py@example.test", "password": PASSWORD})
        self.assertEqual(answer.user.email, "new-py@example.test")
        self.assertIsNotNone(answer.session)
        nobody = await (await self.hub.client()).auth.sign_in_anonymously()
        self.assertTrue(nobody.user.is_anonymous)

    async def test_a_wrong_password_is_refused_with_its_code(self):
        email, _ = await self.hub.account()
        with self.assertRaises(AuthApiError) as refused:
            await (await self.hub.client()).auth.sign_in_with_password({"email": email, "password": "wrong"})
        self.assertEqual((refused.exception.status, refused.exception.code), (400, "invalid_credentials"))

    async def test_rows_are_written_and_read_by_who_owns_them(self):
        client, other = await self.hub.person(), await self.hub.person()
        todos = client.table("todos")
        row = (await todos.insert({"task": "mine", "list_id": 1}).execute()).data[0]
        await client.table("todos").insert([{"task": "a"}, {"task": "b"}]).execute()
        self.assertEqual((await other.table("todos").select("*").execute()).data, [])
        changed = await client.table("todos").update({"task": "changed"}).eq("id", row["id"]).execute()
        self.assertEqual(changed.data[0]["task"], "changed")
        again = await client.table("todos").upsert({"id": row["id"], "task": "again", "list_id": 1}).execute()
        self.assertEqual(again.data[0]["task"], "again")
        embedded = await client.table("todos").select("task, lists(name)").eq("id", row["id"]).single().execute()
        self.assertEqual(embedded.data, {"task": "again", "lists": {"name": "home"}})
        page = await client.table("todos").select("task", count="exact").order("task").range(0, 1).execute()
        self.assertEqual(([one["task"] for one in page.data], page.count), (["a", "again"], 3))
        none = await client.table("todos").select("*").eq("task", "nothing").maybe_single().execute()
        self.assertIsNone(none)
        gone = await client.table("todos").delete().neq("task", "nothing").execute()
        self.assertEqual(len(gone.data), 3)

    async def test_filters_choose_their_rows(self):
        client = await self.hub.client()
        cases = {
            "eq": (lambda q: q.eq("name", "apple"), [1]),
            "neq": (lambda q: q.neq("name", "apple"), [2, 3, 4]),
            "gte and lt": (lambda q: q.gte("price", 1.5).lt("price", 5), [1, 3]),
            "ilike": (lambda q: q.ilike("name", "b%"), [2]),
            "is": (lambda q: q.is_("born", "null"), [3]),
            "in": (lambda q: q.in_("name", ["apple", 'date "medjool"']), [1, 4]),
            "not": (lambda q: q.not_.in_("id", [1, 2]), [3, 4]),
            "contains": (lambda q: q.contains("tags", ["fruit"]), [1, 2]),
            "contains json": (lambda q: q.contains("data", {"size": "small"}), [1]),
            "overlaps": (lambda q: q.overlaps("tags", ["red", "vegetable"]), [1, 3]),
            "range": (lambda q: q.range_gt("span", (1, 5)), [2, 3]),
            "or": (lambda q: q.or_("id.eq.1,and(price.gt.1,price.lt.3)"), [1, 3]),
            "match": (lambda q: q.match({"id": 1, "name": "apple"}), [1]),
            "json": (lambda q: q.eq("data->>size", "long"), [2]),
        }
        for name, (change, wanted) in cases.items():
            with self.subTest(name):
                answer = await change(client.table("catalogue").select("id")).order("id").execute()
                self.assertEqual([row["id"] for row in answer.data], wanted)

    async def test_text_answers_and_functions(self):
        client = await self.hub.client()
        csv = await client.table("catalogue").select("id,name").order("id").limit(2).csv().execute()
        self.assertEqual(csv.data, "id,name\n1,apple\n2,Banana")
        self.assertEqual((await client.rpc("add", {"a": 1, "b": 2}).execute()).data, 3)
        dearer = await client.rpc("dearer_than", {"p_price": 1}).execute()
        self.assertEqual([row["id"] for row in dearer.data], [1, 3, 4])

    async def test_errors_have_code_message_details_and_hint(self):
        client = await self.hub.client()
        with self.assertRaises(APIError) as raised:
            await client.rpc("fails", {"p_code": "P0001", "p_words": "no"}).execute()
        error = raised.exception
        self.assertEqual((error.code, error.message, error.details, error.hint), ("P0001", "no", "a detail", "a hint"))
        with self.assertRaises(APIError) as none:
            await client.table("catalogue").select("*").eq("id", 77).single().execute()
        self.assertEqual(none.exception.code, "PGRST116")
        with self.assertRaises(APIError) as denied:
            await client.table("catalogue").insert({"id": 9}).execute()
        self.assertEqual(denied.exception.code, "42501")


if __name__ == "__main__":
    unittest.main()
