"""
A small MCP server over stdio that asks its client and logs.

The tool `consult` asks for roots and for a sample, and answers with both; each
question has the id of the call that it belongs to, or the one after.  `level`
tells what level was set.  It runs alone: nothing of fjmcp is imported.
"""

import json
import sys
from typing import Any

level = ""
waiting: list[Any] = []


def say(**message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def log(text: str) -> None:
    say(method="notifications/message", params={"level": "info", "data": text})


def hear() -> Any:
    """The next message; what comes meanwhile waits for its turn."""
    return json.loads(sys.stdin.readline())


def answer_of(id: int) -> Any:
    while True:
        message = hear()
        if message.get("id") == id and "method" not in message:
            return message.get("result", message.get("error"))
        waiting.append(message)


def consult(id: int) -> dict[str, Any]:
    log("asking for roots")
    say(id=id, method="roots/list")
    roots = answer_of(id)
    sample: dict[str, Any] = {"messages": [], "maxTokens": 1, "_meta": {"progressToken": "t"}}
    say(id=id + 1, method="sampling/createMessage", params=sample)
    told = {"roots": roots, "sample": answer_of(id + 1)}
    log("asked")
    return told


def serve(message: Any) -> None:
    global level
    match message.get("method"):
        case "initialize":
            say(
                id=message["id"],
                result={
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {}, "logging": {}},
                    "serverInfo": {"name": "asking", "version": "1"},
                },
            )
        case "logging/setLevel":
            level = message["params"]["level"]
            say(id=message["id"], result={})
        case "tools/call" if message["params"]["name"] == "consult":
            say(id=message["id"], result=consult(message["id"]))
        case "tools/call":
            say(id=message["id"], result={"level": level})
        case _ if "id" in message and "method" in message:
            say(id=message["id"], result={})


while True:
    try:
        serve(waiting.pop(0) if waiting else hear())
    except json.JSONDecodeError:
        break  # the end of stdin
