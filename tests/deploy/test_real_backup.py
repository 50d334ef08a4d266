"""Backup and restore, by the very commands of docs/operations.md."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

import httpx2

from fjmcp.demo.__main__ import PASSWORD, USER
from fjmcp.demo.child import RealChild
from fjmcp.demo.person import Person
from fjmcp.demo.processes import Servers
from fjmcp.demo.walk import Assistant
from tests.deploy.proxies import program

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def commands(name: str, places: dict[str, Path]) -> str:
    """What the page says to run, at other places."""
    match = re.search(rf"<!-- run: {name} -->\n\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match is not None, name
    text = match[1]
    for before, after in places.items():
        text = text.replace(before, str(after))
    return text


def run(name: str, places: dict[str, Path]) -> str:
    """Run it; what it prints."""
    program("sqlite3")
    script = commands(name, places)
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def post(
    servers: Servers, headers: dict[str, str], method: str, **params: object
) -> httpx2.Response:
    """One request to /mcp."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return httpx2.post(
        f"{servers.public_url}/mcp",
        content=json.dumps(message),
        headers={
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **headers,
        },
        timeout=30,
    )


def session(servers: Servers, name: str) -> dict[str, str]:
    """Sign in and open a session: the headers of its requests."""

    async def sign_in() -> dict[str, str]:
        assistant = Assistant(f"{servers.public_url}/mcp", Person(USER, PASSWORD), print, name)
        async with assistant.session():
            return assistant.bearer()

    bearer = asyncio.run(sign_in())
    told = post(
        servers,
        bearer,
        "initialize",
        protocolVersion="2025-11-25",
        capabilities={},
        clientInfo={"name": name, "version": "1"},
    )
    headers = bearer | {"Mcp-Session-Id": told.headers["mcp-session-id"]}
    # A session that was opened and never used leaves no row.
    assert post(servers, headers, "tools/list").status_code == 200
    return headers


def test_a_backup_made_at_work_is_restored(patient_child: RealChild, tmp_path: Path) -> None:
    """
    A copy made while the daemon works, and the key file, bring everything back.

    Sessions and tokens of its time go on; what came later is unknown.
    """
    home = tmp_path / "home"
    places = {
        "/var/lib/fjmcp": home,
        "/var/backups/fjmcp": tmp_path / "backup",
        "/root/fjmcp-keys": tmp_path / "keys",
    }
    for place in places.values():
        place.mkdir(mode=0o700)
    servers = Servers(patient_child, home)
    try:
        servers.start_forge()
        daemon = servers.start_broker()
        before = session(servers, "before")
        assert run("backup", places).strip() == "ok"
        run("keys", places)
        after = session(servers, "after")

        daemon.kill()
        (home / "fjmcp.sqlite3").write_bytes(b"what a broken disk leaves")
        (home / "fjmcp.keys").unlink()
        run("restore", places)
        servers.start_broker()

        called = post(servers, before, "tools/call", name="echo", arguments={})
        assert called.json().get("result") == {"text": "echo"}, called.text
        assert post(servers, after, "tools/list").status_code == 401
        for name in ("fjmcp.sqlite3", "fjmcp.keys"):
            assert (home / name).stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "backup" / "fjmcp.sqlite3").stat().st_mode & 0o777 == 0o600
    finally:
        servers.stop()


def test_a_backup_is_repeated(patient_child: RealChild, tmp_path: Path) -> None:
    """The commands can be run again, every night, over the copy of the night before."""
    home, backup = tmp_path / "home", tmp_path / "backup"
    home.mkdir()
    backup.mkdir()
    servers = Servers(patient_child, home)
    try:
        servers.start_broker()
        for _ in range(2):
            assert run("backup", {"/var/lib/fjmcp": home, "/var/backups/fjmcp": backup}) == "ok\n"
    finally:
        servers.stop()
