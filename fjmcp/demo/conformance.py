"""
`make conformance`: what others' programs find when they judge a running broker.

The official suite's authorization scenarios and mcp-authlab, each with a
scripted browser that reads the URL it is given and goes the way of a person.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx2

from fjmcp.demo import child as children
from fjmcp.demo import opener
from fjmcp.demo.child import NoChild
from fjmcp.demo.person import Lost, Person
from fjmcp.demo.processes import NotStarted, Servers, free_port
from fjmcp.demo.toolbox import AUTHLAB, HOME, NODE, SUITE, NotInstalled, Toolbox, toolbox

SCENARIOS: Final = ("authorization-server-metadata-endpoint", "authorization-code-grant")

ARGUED: Final = {"TLS-01": "plain http, since everything here is on loopback"}
"""What mcp-authlab may mark, and why; docs/conformance.md says the same."""

_CHILD_HOME: Final = Path(".child")
_SUITE_SECONDS: Final = 60.0
_AUTHLAB_SECONDS: Final = 120.0
_AUTHORIZE: Final = re.compile(r"^http\S+/oauth/authorize\?\S+$")


def scenarios(servers: Servers, box: Toolbox, out: Path) -> list[str]:
    """
    Run the suite's authorization scenarios.

    :return: the names of those that did not pass; none is good.
    """
    port = free_port()
    body = {
        "client_name": "conformance suite",
        "redirect_uris": [f"http://127.0.0.1:{port}/callback"],
        # The suite takes `none` where a server offers it, whatever secret it is given.
        "token_endpoint_auth_method": "none",
    }
    registered = httpx2.post(f"{servers.public_url}/oauth/register", json=body).json()
    suite = subprocess.Popen(
        [
            *(box.node, box.script(SUITE, "dist/index.js"), "authorization"),
            *("--url", servers.public_url, "--client-id", registered["client_id"]),
            *("--resource", f"{servers.public_url}/mcp", "-p", str(port), "-o", str(out)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    timer = threading.Timer(_SUITE_SECONDS, suite.kill)
    timer.start()
    printed = []
    try:
        assert suite.stdout is not None
        for line in suite.stdout:
            printed.append(line)
            if _AUTHORIZE.match(line.strip()):
                asyncio.run(opener.bring_back(line.strip(), _aside))
        suite.wait()
    finally:
        timer.cancel()
        suite.kill()
    not_passed = []
    for name in SCENARIOS:
        checks = _checks(out, name)
        for check in checks:
            if check["status"] not in ("SUCCESS", "INFO"):
                _aside(f"{check['id']}: {check['status']}: {check.get('errorMessage', '')}")
        statuses = [check["status"] for check in checks]
        # A warning is no failure by the suite's own rule; a scenario that was skipped is one here.
        if "SUCCESS" not in statuses or {"FAILURE", "SKIPPED"} & set(statuses):
            not_passed.append(name)
        print(f"  {'failed' if name in not_passed else 'passed'}  {name}", flush=True)
    if suite.returncode and not not_passed:
        not_passed.append(f"the suite ended with {suite.returncode}")
    if not_passed:
        print("".join(printed), file=sys.stderr)
    return not_passed


def _checks(out: Path, scenario: str) -> list[dict[str, Any]]:
    """What the suite wrote down about a scenario."""
    found: list[dict[str, Any]] = []
    for path in out.glob(f"*{scenario}-2*/checks.json"):
        found += json.loads(path.read_text())
    return found


def authlab(servers: Servers, box: Toolbox, home: Path) -> list[str]:
    """
    Run mcp-authlab: its sign-in with probes, then its scan.

    :return: the checks that it marks and that nobody has argued; none is good.
    """
    url = f"{servers.public_url}/mcp"
    program = [str(box.python), "-m", "mcp_authlab"]
    environment = {
        **os.environ,
        "BROWSER": f"{opener.write(home / 'browser')} %s",
        "MCP_AUTHLAB_TOKENS": str(home / "tokens.json"),
        # The one that TOK-03 tries: a true token of this person, for the API behind us.
        "MCP_AUTHLAB_FOREIGN_TOKEN": asyncio.run(forge_token(servers)),
    }
    login = _run([*program, "login", "--thorough", "--no-color", url], environment)
    if login.returncode:
        print(login.stdout, login.stderr, file=sys.stderr)
        return ["login"]
    for name, more in (("json", []), ("text", ["--no-color"])):
        target = str(home / f"authlab.{name}")
        done = _run([*program, "scan", "--format", name, "-o", target, *more, url], environment)
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
            return ["scan"]
    print((home / "authlab.text").read_text(), flush=True)
    report = json.loads((home / "authlab.json").read_text())
    marked = [_id(each) for each in report["results"] if each["status"] not in ("pass", "skip")]
    skipped = [_id(each) for each in report["results"] if each["status"] == "skip"]
    for name in marked:
        if name in ARGUED:
            _aside(f"{name} is marked: {ARGUED[name]}")
    not_argued = [name for name in (*marked, *skipped) if name not in ARGUED]
    word = "failed" if not_argued or report["grade"] != "A" else "passed"
    print(f"  {word}  {AUTHLAB}: grade {report['grade']}", flush=True)
    return not_argued or ([] if word == "passed" else [f"grade {report['grade']}"])


def _id(result: dict[str, Any]) -> str:
    return str(result["id"])


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_AUTHLAB_SECONDS,
        check=False,
    )


async def forge_token(servers: Servers) -> str:
    """A token of the person for Forgejo's own API, which must open nothing here."""
    back, application = f"{servers.public_url}/oauth/callback", servers.application
    asked = {
        "client_id": application[0],
        "redirect_uri": back,
        "response_type": "code",
        "state": "s",
    }
    async with Person(opener.USER, opener.PASSWORD) as person:
        came = await person.sign_in(
            f"{servers.forge_url}/login/oauth/authorize?{urlencode(asked)}", back
        )
    async with httpx2.AsyncClient() as plain:
        answer = await plain.post(
            f"{servers.forge_url}/login/oauth/access_token",
            auth=application,
            data={
                "grant_type": "authorization_code",
                "code": came["code"],
                "redirect_uri": back,
            },
        )
    return str(answer.json()["access_token"])


def main(arguments: list[str]) -> int:
    """Judge, and print the verdicts; 1 if any is bad."""
    parser = argparse.ArgumentParser(
        prog="make conformance",
        description="The official suite's authorization scenarios, and mcp-authlab.",
    )
    parser.add_argument("--child", metavar="CHILD", help="forgejo-mcp, gitea-mcp, or a path")
    options = parser.parse_args(arguments)
    run = HOME / "run"
    try:
        box = toolbox("judges", [NODE, AUTHLAB], [SUITE], _aside)
        child = children.find(options.child, _CHILD_HOME, _aside)
    except (NotInstalled, NoChild) as refused:
        print(refused, file=sys.stderr)
        return 1
    shutil.rmtree(run, ignore_errors=True)
    servers = Servers(child, run)
    try:
        servers.start_forge()
        servers.start_broker()
        print(f"broker at {servers.public_url}, {child.kind} behind it; logs are in {run}/")
        print(f"\n{SUITE}, authorization", flush=True)
        bad = scenarios(servers, box, (run / "suite").absolute())
        passed = sum(name not in bad for name in SCENARIOS)
        print(f"\n{passed}/{len(SCENARIOS)} scenarios passed", flush=True)
        print(f"\n{AUTHLAB}", flush=True)
        bad += authlab(servers, box, run.absolute())
    except (NotStarted, Lost, httpx2.HTTPError, subprocess.TimeoutExpired) as failed:
        bad = [str(failed)]
    except KeyboardInterrupt:
        bad = ["stopped before its end"]
    finally:
        servers.stop()
    print(f"\nnot as it should be: {', '.join(bad)}" if bad else "\nAll as it should be.")
    return 1 if bad else 0


def _aside(words: str) -> None:
    print(f"      {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
