"""A hub as a process of its own for one test class, with the tables of the stories."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pg8000.native
from supabase import AsyncClient, acreate_client

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PROGRAM = os.environ.get("SEMO_PROGRAM", str(ROOT / "target" / "debug" / "semo"))
# A first start makes a database; on a busy machine that takes a while.
START_S = 90
STOP_S = 30
WAIT_S = 15
PASSWORD = "a-long-password-of-a-story"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class TestHub:
    """Started by `start`, ended by `stop`."""

    def __init__(self, **env: str):
        self.folder = Path(tempfile.mkdtemp(prefix="semo-clients-"))
        self.env = env
        self.port = free_port()
        self.elsewhere = None

    def start(self) -> "TestHub":
        self.run()
        self.keys = json.loads((self.folder / "data" / "hub" / "hub.json").read_text())
        self.sql((HERE.parent / "schema.sql").read_text())
        return self

    def run(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("SEMO_")}
        env |= {
            "SEMO_HUB_LISTEN": f"127.0.0.1:{self.port}",
            "SEMO_CONFIG_DIR": str(self.folder / "config"),
            "SEMO_DATA_DIR": str(self.folder / "data"),
            **self.env,
        }
        self.process = subprocess.Popen(
            [PROGRAM, "hub", "--json"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        said: list[str] = []
        self.readers = [
            threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True),
            threading.Thread(target=lambda: said.extend(self.process.stdout), daemon=True),
        ]
        for reader in self.readers:
            reader.start()
        deadline = time.monotonic() + START_S
        while not said:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("semo hub did not start:\n" + "".join(self.log[-10:]))
            time.sleep(0.05)
        places = json.loads(said[0])
        self.url, self.publishable = places["url"], places["publishable_key"]

    def database(self) -> str:
        """Where the hub's own Postgres listens: beside its data, or where the log says that it had to be put."""
        found = re.search(r'"cluster":"([^"]+)"', "".join(self.log))
        if found:
            self.elsewhere = Path(found.group(1))
        root = self.elsewhere or self.folder / "data" / "hub"
        lines = (root / "postgres" / "postmaster.pid").read_text().splitlines()
        return f"{lines[4]}/.s.PGSQL.{lines[3]}"

    def sql(self, text: str, **values):
        """As the database's superuser."""
        connection = pg8000.native.Connection("supabase_admin", database="postgres", unix_sock=self.database())
        try:
            if values:
                return connection.run(text, **values)
            return connection.execute_simple(text).rows
        finally:
            connection.close()

    async def client(self, key: str | None = None) -> AsyncClient:
        return await acreate_client(self.url, key or self.publishable)

    async def account(self) -> tuple[str, str]:
        """A new account: its address and id."""
        email = f"py-{uuid.uuid4().hex[:8]}@example.test"
        admin = await self.client(self.keys["secret"])
        made = await admin.auth.admin.create_user({"email": email, "password": PASSWORD, "email_confirm": True})
        return email, made.user.id

    async def person(self) -> AsyncClient:
        email, _ = await self.account()
        client = await self.client()
        await client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
        return client

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
            finally:
                for reader in self.readers:
                    reader.join(1)
                self.process.stdout.close()
                self.process.stderr.close()

    def stop(self) -> None:
        try:
            self.end()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.elsewhere:
                shutil.rmtree(self.elsewhere, ignore_errors=True)


async def wait_until(what: str, look, seconds: float = WAIT_S):
    """Asks `look` until it gives something true; says what it waited for when it never did."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain until {what}")
        await asyncio.sleep(0.025)
