"""What is packed is what is there."""

from __future__ import annotations

import ast
import sys
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

# Import names that differ from the name of what is installed.
INSTALLED_AS = {
    "attr": "attrs",
    "zope": "zope.interface",
    "OpenSSL": "twisted[tls]",
    "service_identity": "service-identity",
    "prometheus_client": "prometheus-client",
}


class PackagingTests(SynchronousTestCase):
    """setup.cfg against the tree."""

    def setUp(self) -> None:
        """The declarations."""
        self.declared = ConfigParser(interpolation=None)
        self.declared.read(ROOT / "setup.cfg")

    def lines(self, section: str, key: str) -> list[str]:
        """The lines of one declaration."""
        return [line for line in self.declared[section][key].splitlines() if line.strip()]

    def test_packages(self) -> None:
        """Every package of the tree is packed, and nothing that is not there."""
        found = {
            ".".join(path.parent.relative_to(ROOT).parts)
            for path in (ROOT / "fjmcp").rglob("__init__.py")
        }
        self.assertEqual(
            sorted(self.lines("options", "packages")), sorted(found | {"twisted.plugins"})
        )

    def test_data(self) -> None:
        """Every file beside the modules is packed."""
        packed = {
            path
            for package, patterns in self.declared["options.package_data"].items()
            for pattern in patterns.split(",")
            for path in (ROOT / package.replace(".", "/")).glob(pattern.strip())
        }
        beside = {
            path
            for path in (ROOT / "fjmcp").rglob("*")
            if path.is_file() and path.suffix not in {".py", ".pyc"} and path.name != "_build.json"
        }
        self.assertEqual(packed, beside)

    def test_plugin_folder_is_no_package(self) -> None:
        """An __init__.py on the way to the plugin would hide Twisted."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])

    def test_requirements(self) -> None:
        """Whatever is imported is required; the demo may need more."""
        required = {
            line.split()[0].partition("[")[0].lower()
            for line in self.lines("options", "install_requires")
            if not line.startswith("#")
        }
        demo = {line.split()[0] for line in self.lines("options.extras_require", "demo")}
        for path in (ROOT / "fjmcp").rglob("*.py"):
            allowed = required | (demo if "demo" in path.parts else set())
            for name in _imported(path) - sys.stdlib_module_names - {"fjmcp"}:
                package = INSTALLED_AS.get(name, name).partition("[")[0].lower()
                self.assertIn(package, allowed, f"{path} imports {name}")


def _imported(path: Path) -> set[str]:
    """The first part of every module that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found
