"""
A small MCP server over stdio, which never answers some calls.

It runs alone: nothing of fjmcp is imported.
"""

import json
import sys


def say(id: object, result: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}) + "\n")
    sys.stdout.flush()


TOLD = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "patient", "version": "1"},
}

for line in sys.stdin:
    message = json.loads(line)
    match message:
        case {"method": "initialize", "id": id}:
            say(id, TOLD)
        case {"method": "tools/call", "params": {"name": "never"}}:
            pass
        case {"method": "tools/call", "id": id, "params": {"name": "huge"}}:
            say(id, {"text": "x" * (20 * 1024 * 1024)})
        case {"id": id}:
            say(id, {"text": message.get("params", {}).get("name")})
