"""fjmcp behind the reverse proxies whose configuration is shipped, each a real process."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path

import httpx2
import pytest

from fjmcp import limits
from fjmcp.demo.__main__ import PASSWORD, USER, Teller, walk
from fjmcp.demo.child import RealChild
from fjmcp.demo.person import Person
from fjmcp.demo.walk import Assistant
from tests.deploy.conftest import running
from tests.deploy.proxies import Behind, Certificate
from tests.e2e.conftest import real_children

REGISTRATION = json.dumps({"redirect_uris": ["https://client.example/back"]})


class Line:
    """One connection to the proxy, from an address of this machine's."""

    def __init__(self, behind: Behind, trust: ssl.SSLContext, address: str = "127.0.0.1") -> None:
        self._connection = HTTPSConnection(
            "localhost", behind.proxy_port, context=trust, source_address=(address, 0), timeout=60
        )

    def send(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> HTTPResponse:
        """A request; the head of its response."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, named)
        return self._connection.getresponse()

    @property
    def socket(self) -> socket.socket | None:
        """The socket, None once it was closed."""
        return self._connection.sock

    def close(self) -> None:
        """Leave."""
        self._connection.close()


Dial = Callable[..., Line]


@pytest.fixture
def dial(behind: Behind, trust: ssl.SSLContext) -> Iterator[Dial]:
    """Opens connections, which end with the test."""
    lines: list[Line] = []

    def opened(address: str = "127.0.0.1") -> Line:
        lines.append(Line(behind, trust, address))
        return lines[-1]

    yield opened
    for line in lines:
        line.close()


@pytest.fixture(scope="module")
def bearer(behind: Behind) -> dict[str, str]:
    """The headers of a client that has signed in."""

    async def sign_in() -> dict[str, str]:
        assistant = Assistant(f"{behind.public_url}/mcp", Person(USER, PASSWORD), print, "test")
        async with assistant.session():
            return assistant.bearer()

    return {
        **asyncio.run(sign_in()),
        "Content_Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }


def call(tool: str, id: int = 1, **arguments: str) -> bytes:
    """The call of a tool."""
    params = {"name": tool, "arguments": arguments}
    return json.dumps(
        {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}
    ).encode()


def connections(behind: Behind) -> set[int]:
    """The local ports of the connections that lead to the broker."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if int(remote.partition(":")[2], 16) == behind.broker_port and state == "01":
            found.add(int(local.partition(":")[2], 16))
    return found


def until(fact: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if fact():
            return True
        time.sleep(0.05)
    return fact()


def test_the_whole_way(proxy: str, cert: Certificate, tmp_path: Path) -> None:
    """From the 401 to the revoked token, a real child's tools among it, through the proxy."""
    child: RealChild = real_children()[0]
    for servers in running(proxy, cert, child, tmp_path / proxy):
        asyncio.run(walk(servers, Teller()))


def test_host_is_that_of_the_public_url(behind: Behind, dial: Dial) -> None:
    """What fjmcp is asked for is what the client asked for: no 421, and a challenge that fits."""
    answer = dial().send("POST", "/mcp", "{}", Content_Type="application/json")
    assert answer.status == 401
    assert behind.public_url in answer.headers["www-authenticate"]
    document = json.loads(dial().send("GET", "/.well-known/oauth-authorization-server").read())
    assert document["issuer"] == behind.public_url


def test_no_redirect(dial: Dial) -> None:
    """A slash too many is answered in place: clients follow no redirect of a POST."""
    for path in ("/mcp", "/mcp/", "/register/", "/oauth/token/"):
        line = dial()
        answer = line.send("POST", path, "{}", Content_Type="application/json")
        assert answer.status in {400, 401}, f"{path}: {answer.status}"


def test_events_come_at_once(behind: Behind, dial: Dial, bearer: dict[str, str]) -> None:
    """A stream's first comment is there while its call, which has no end, still runs."""
    answer = dial().send(
        "POST", "/mcp", call("never", 7), **bearer | {"Accept": "text/event-stream"}
    )
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers.get("content-encoding") is None
    assert answer.readline().startswith(b":")


def test_a_silent_call_becomes_a_stream(dial: Dial, bearer: dict[str, str]) -> None:
    """What has no answer after ten seconds goes on as a stream, whose head the proxy passes on."""
    began = time.monotonic()
    answer = dial().send("POST", "/mcp", call("never", 8), Accept_Encoding="gzip", **bearer)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.readline().startswith(b":")
    assert time.monotonic() - began < limits.JSON_ANSWER + 3


def test_a_client_that_leaves_is_gone(behind: Behind, dial: Dial, bearer: dict[str, str]) -> None:
    """A client that closes its stream closes the proxy's connection to fjmcp too."""
    before = connections(behind)
    line = dial()
    answer = line.send("POST", "/mcp", call("never", 9), **bearer | {"Accept": "text/event-stream"})
    assert answer.readline().startswith(b":")
    used = connections(behind)
    answer.close()
    line.close()
    assert until(lambda: len(connections(behind)) < len(used)), (before, used)


def test_long_bodies(dial: Dial, bearer: dict[str, str]) -> None:
    """A request of almost 8 MiB gets its answer."""
    room = limits.MCP_BODY - len(call("echo", text=""))
    answer = dial().send("POST", "/mcp", call("echo", text="x" * room), **bearer)
    assert answer.status == 200
    assert json.loads(answer.read())["result"] == {"text": "echo"}


def test_too_long_a_body(behind: Behind, bearer: dict[str, str]) -> None:
    """One byte more is refused by fjmcp, not by the proxy: a client of MCP can read it."""
    room = limits.MCP_BODY - len(call("echo", text="")) + 1
    # The answer comes before all was sent, so the client must look for it all the same.
    answer = httpx2.post(
        f"{behind.public_url}/mcp",
        content=call("echo", text="x" * room),
        headers={name.replace("_", "-"): value for name, value in bearer.items()},
    )
    assert answer.status_code == 413
    assert "larger than this server takes" in answer.json()["error"]["message"]


def test_long_answers(dial: Dial, bearer: dict[str, str]) -> None:
    """An answer of 20 MiB comes whole."""
    answer = dial().send("POST", "/mcp", call("huge"), **bearer)
    assert len(json.loads(answer.read())["result"]["text"]) == 20 * 1024 * 1024


def test_connections_are_kept(behind: Behind, dial: Dial, bearer: dict[str, str]) -> None:
    """Requests one after the other share a connection, on both sides of the proxy."""
    line = dial()
    line.send("GET", "/healthz").read()
    mine, theirs = line.socket, connections(behind)
    for number in range(20):
        assert line.send("POST", "/mcp", call("echo", number), **bearer).read()
    assert line.socket is mine
    kept = connections(behind)
    assert kept
    assert kept <= theirs


def test_addresses(behind: Behind, dial: Dial) -> None:
    """
    Who registers too often is refused by the address that the proxy saw.

    What the client itself says of its address has no weight, and others go on.
    """
    at_once, _ = limits.RATES_OF_ADDRESS["register"]
    flood = dial("127.0.2.2")
    statuses = []
    for number in range(at_once + 10):
        answer = flood.send(
            "POST",
            "/register",
            REGISTRATION,
            Content_Type="application/json",
            X_Forwarded_For=f"198.51.{number}.7",
        )
        answer.read()
        statuses.append(answer.status)
    assert statuses[:at_once] == [201] * at_once
    assert statuses[-1] == 429
    other = dial("127.0.3.3").send(
        "POST", "/register", REGISTRATION, Content_Type="application/json"
    )
    assert other.status == 201


def test_no_secret_in_the_proxys_log(proxy: str, behind: Behind, bearer: dict[str, str]) -> None:
    """The proxy's own log has the path of each request, and neither codes nor tokens."""
    log = behind.home / proxy / "access.log"
    assert until(lambda: "/oauth/callback" in log.read_text())
    text = log.read_text()
    assert "code=" not in text
    assert "state=" not in text
    assert bearer["Authorization"] not in text
