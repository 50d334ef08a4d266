"""
An MCP server over stdio that does what a test asks of it, well or badly.

    python able_child.py BUILD [poor]

`poor` leaves out a capability that others have.  Its tools:

    pid                         its process number
    wait      {seconds}         answers after that time
    forget    {}                never answers, and lives on
    crash     {}                ends without an answer
    flood     {bytes, stderr}   writes so much of no use, then answers
    stubborn  {}                from here on only SIGKILL ends it

It runs alone: nothing of fjmcp is imported.
"""

import json
import os
import signal
import sys
import threading

BUILD = sys.argv[1]
POOR = "poor" in sys.argv
writing = threading.Lock()
stubborn = False


def say(**message: object) -> None:
    with writing:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def text(id: object, words: object) -> None:
    say(id=id, result={"content": [{"type": "text", "text": str(words)}]})


def flood(id: object, size: int, stderr: bool) -> None:
    line = "again and again and again " * 4 + "\n"
    stream = sys.stderr if stderr else sys.stdout
    with writing:
        for _ in range(size // len(line)):
            stream.write(line)
        stream.flush()
    text(id, "flooded")


def call(id: object, name: str, arguments: dict[str, object]) -> None:
    global stubborn
    match name:
        case "pid":
            text(id, os.getpid())
        case "wait":
            seconds = float(str(arguments["seconds"]))
            threading.Timer(seconds, text, (id, f"waited {seconds} s")).start()
        case "crash":
            os._exit(7)
        case "flood":
            flood(id, int(str(arguments["bytes"])), bool(arguments.get("stderr")))
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            stubborn = True
            text(id, "nothing but SIGKILL")
        case "forget":
            pass


def main() -> None:
    tools = ["pid", "wait", "forget", "crash", "flood", "stubborn"]
    capabilities: dict[str, object] = {"tools": {"listChanged": True}}
    if not POOR:
        capabilities["resources"] = {}
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                say(
                    id=message["id"],
                    result={
                        "protocolVersion": message["params"]["protocolVersion"],
                        "capabilities": capabilities,
                        "serverInfo": {"name": "able", "version": BUILD},
                    },
                )
            case "tools/list":
                schema = {"type": "object"}
                listed = [{"name": name, "inputSchema": schema} for name in tools]
                say(id=message["id"], result={"tools": listed})
            case "tools/call":
                params = message["params"]
                call(message["id"], params["name"], params["arguments"])
            case _ if "id" in message:
                say(id=message["id"], result={})
    while stubborn:
        signal.pause()


main()
