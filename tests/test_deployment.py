"""The units and the workflow that are shipped, against what they start."""

from __future__ import annotations

import re
import shlex
from configparser import RawConfigParser
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.daemon.options import MISUSED
from fjmcp.daemon.settings import CLIENT_SECRET
from fjmcp.daemon.table import BY_NAME
from fjmcp.store.keys import CREDENTIAL

ROOT = Path(__file__).resolve().parent.parent


class Words(dict[str, str]):
    """A section in which a word may be said again: its values, one a line."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, list) and key in self:
            value = [*self[key], *value]
        super().__setitem__(key, value)


def unit(name: str) -> RawConfigParser:
    """A unit file of systemd's."""
    parser = RawConfigParser(dict_type=Words, strict=False, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    assert parser.read(ROOT / "systemd" / name)
    return parser


class UnitTests(SynchronousTestCase):
    """systemd/"""

    def setUp(self) -> None:
        """Both units."""
        self.service = unit("fjmcp.service")["Service"]
        self.socket = unit("fjmcp.socket")["Socket"]

    def test_command(self) -> None:
        """The command has options that there are, and listens at the socket's name."""
        words = shlex.split(self.service["ExecStart"])
        ours = words[words.index("fjmcp") + 1 :]
        said = dict(word.removeprefix("--").split("=", 1) for word in ours)
        self.assertLessEqual(set(said), set(BY_NAME))
        name = self.socket["FileDescriptorName"]
        self.assertEqual(said["listen"], f"systemd:domain=INET:name={name}")
        self.assertIn("--nodaemon", words)

    def test_credentials(self) -> None:
        """The credentials have the names that the daemon looks for."""
        loaded = {word.partition(":")[0] for word in self.service["LoadCredential"].splitlines()}
        self.assertEqual(loaded, {CLIENT_SECRET, CREDENTIAL})

    def test_limits(self) -> None:
        """systemd waits longer than the daemon needs, and does not retry what cannot be run."""
        self.assertGreater(float(self.service["TimeoutStopSec"]), limits.SHUTDOWN)
        self.assertGreater(float(self.service["TimeoutStopSec"]), limits.CREDENTIALS_SETTLE)
        self.assertGreaterEqual(int(self.service["TasksMax"]), 20 * limits.CHILDREN)
        self.assertEqual(int(self.service["RestartPreventExitStatus"]), MISUSED)


class ProxyTests(SynchronousTestCase):
    """deploy/nginx, deploy/caddy: what `make deploy-test` is too short to see."""

    def test_nginx(self) -> None:
        """nginx waits longer than a call may take, and lets an idle connection go first."""
        text = (ROOT / "deploy" / "nginx" / "fjmcp.conf").read_text("utf-8")
        self.assertGreater(said_by(text, r"proxy_read_timeout (\d+)m;") * 60, limits.CALL)
        self.assertGreater(said_by(text, r"send_timeout (\d+)m;") * 60, limits.STREAM_STALL)
        self.assertLess(said_by(text, r"keepalive_timeout (\d+)s;"), limits.CONNECTION_IDLE)
        self.assertGreater(said_by(text, r"max_body_size (\d+)m;") * 1024**2, limits.MCP_BODY)

    def test_caddy(self) -> None:
        """So does Caddy."""
        text = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text("utf-8")
        self.assertGreater(said_by(text, r"response_header_timeout (\d+)m") * 60, limits.CALL)
        self.assertLess(said_by(text, r"keepalive (\d+)s"), limits.CONNECTION_IDLE)
        self.assertGreater(said_by(text, r"max_size (\d+)MiB") * 1024**2, limits.MCP_BODY)
        self.assertNotRegex(text, r"(?m)^\s*flush_interval")


class ContainerTests(SynchronousTestCase):
    """deploy/podman"""

    def setUp(self) -> None:
        """The Quadlet files."""
        self.unit = unit("../deploy/podman/fjmcp.container")
        self.container = self.unit["Container"]

    def test_options(self) -> None:
        """Command and environment have options that there are."""
        words = " ".join(self.container["Environment"].splitlines())
        names = {word.partition("=")[0] for word in shlex.split(words)}
        self.assertLessEqual(names, {option.variable for option in BY_NAME.values()})
        for word in shlex.split(self.container["Exec"]):
            self.assertIn(word.removeprefix("--").partition("=")[0], BY_NAME)

    def test_limits(self) -> None:
        """Podman and systemd wait as long as a stop may take, Podman the shorter."""
        inner = float(self.container["StopTimeout"])
        self.assertGreater(inner, limits.SHUTDOWN)
        service = self.unit["Service"]
        self.assertGreater(float(service["TimeoutStopSec"]), inner)
        self.assertEqual(int(service["RestartPreventExitStatus"]), MISUSED)
        self.assertGreaterEqual(int(self.container["PidsLimit"]), 20 * limits.CHILDREN)

    def test_network(self) -> None:
        """The proxy that is trusted has the address of the network's gateway."""
        gateway = unit("../deploy/podman/fjmcp.network")["Network"]["Gateway"]
        self.assertIn(f"FJMCP_TRUSTED_PROXIES={gateway}", self.container["Environment"])

    def test_same_user(self) -> None:
        """The secret belongs to the user of the image."""
        text = (ROOT / "deploy" / "podman" / "Containerfile").read_text("utf-8")
        uid = int(said_by(text, r"--uid (\d+) "))
        self.assertIn(f"uid={uid},", self.container["Secret"])


def said_by(text: str, pattern: str) -> float:
    """The number that a file says."""
    match = re.search(pattern, text)
    assert match is not None, pattern
    return float(match[1])


class WorkflowTests(SynchronousTestCase):
    """.forgejo/workflows/"""

    def test_runs_the_same(self) -> None:
        """Every workflow is YAML, and one runs `.ci/run` for pushes and pull requests."""
        # Its stubs are not worth a dependency.
        yaml: Any = import_module("yaml")
        flows = {
            path.name: yaml.safe_load(path.read_text("utf-8"))
            for path in (ROOT / ".forgejo" / "workflows").glob("*.yml")
        }
        flow = flows["ci.yml"]
        # YAML 1.1 reads a bare `on` as true.
        self.assertEqual(set(flow[True]), {"push", "pull_request"})
        steps = [step for job in flow["jobs"].values() for step in job["steps"]]
        self.assertEqual([step["run"] for step in steps if "run" in step], [".ci/run"])
        self.assertTrue((ROOT / ".ci" / "run").stat().st_mode & 0o111)
        for step in steps:
            self.assertTrue("run" in step or re.match(r"https://[^@]+@v\d+\Z", step["uses"]), step)
