"""
A small MCP server over stdio, to try real processes with.

    python small_child.py MODE [ARGUMENT]

`normal` answers; the other modes each misbehave in one way.
It runs alone: nothing of fjmcp is imported.
"""

import json
import os
import signal
import subprocess
import sys
import threading

MODE = sys.argv[1]
TOKEN = os.environ.get("TOKEN", "")


def say(**message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def initialize(id: object) -> None:
    say(
        id=id,
        result={
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "small", "version": MODE},
        },
    )


def call(id: object, name: str) -> None:
    if name == "echo-token":
        sys.stderr.write(f"told {TOKEN[:9]}")
        sys.stderr.flush()
        threading.Event().wait(0.05)
        sys.stderr.write(f"{TOKEN[9:]} here\n")
        sys.stderr.flush()
        say(id=id, error={"code": -32603, "message": f"does not exist [sha: {TOKEN}]"})
    elif name == "huge":
        say(id=id, result={"text": "x" * (20 * 1024 * 1024)})
    elif name == "garbage":
        sys.stdout.buffer.write(b"\x00\xff\xfe garbage \x80\n{not json\n[]\n\n")
        sys.stdout.flush()
        say(id=id, result={"text": "after"})
    elif name == "crash":
        os._exit(7)
    elif name == "slow":
        threading.Event().wait(0.3)
        say(id=id, result={"text": "slow"})
    elif name == "never":
        signal.pause()
    else:
        say(id=id, result={"text": name})


def leave_descendants() -> None:
    """A process in our group; its number goes to a file."""
    sleep = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
    near = subprocess.Popen(sleep)
    with open(sys.argv[2], "w") as numbers:
        numbers.write(f"{near.pid}")


def main() -> None:
    if MODE == "exit-1":
        sys.stderr.write("FATAL connection test failed\n")
        sys.exit(1)
    if MODE == "hang":
        signal.pause()
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if MODE == "descendants":
        leave_descendants()
    if MODE == "flood":
        sys.stderr.write("x" * 200 + "\n")
        for _ in range(20_000):
            sys.stderr.write("again and again and again and again and again\n")
        sys.stderr.flush()
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                initialize(message["id"])
            case "tools/call":
                call(message["id"], message["params"]["name"])
            case _ if "id" in message:
                say(id=message["id"], result={})
    if MODE == "stubborn":
        signal.pause()


main()
