"""
What we know of a child, and the command that starts one.

A *kind* is knowledge about a product: which variables it reads, what it never
does.  A *recipe* is what the operator configured.  A *command* is a recipe
filled in for one credential; only the command holds a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

from fjmcp.mcp.opening import Profile


@frozen
class ChildKind:
    """
    A product that speaks MCP over stdio.

    The variables are names in its environment: where the forge is, the token,
    and the User-Agent it sends; None where it reads no such thing.
    """

    name: str
    url_variable: str | None
    token_variable: str | None
    user_agent_variable: str | None
    profile: Profile
    constants: tuple[tuple[str, str], ...] = ()


FORGEJO_MCP: Final = ChildKind(
    name="forgejo-mcp",
    url_variable="FORGEJO_URL",
    token_variable="FORGEJO_ACCESS_TOKEN",
    user_agent_variable="FORGEJO_USER_AGENT",
    profile=Profile(never_asks=True, never_logs=True),
)
"""goern/forgejo-mcp.  Read in its source up to v2.34.1: no question and no
notification ever leaves it."""

GITEA_MCP: Final = ChildKind(
    name="gitea-mcp",
    url_variable="GITEA_URL",
    token_variable="GITEA_TOKEN",
    user_agent_variable=None,
    profile=Profile(never_asks=True, never_logs=True),
    constants=(
        ("FASTMCP_SHOW_CLI_BANNER", "false"),
        ("FASTMCP_CHECK_FOR_UPDATES", "off"),
    ),
)
"""gitea-mcp of PyPI (werebear73), on FastMCP, which else asks the network for
updates of itself at each start."""

OTHER: Final = ChildKind(
    name="other",
    url_variable=None,
    token_variable=None,
    user_agent_variable=None,
    profile=Profile(never_asks=False, never_logs=False),
)
"""A child that we know nothing of: the operator names its variables."""

_KINDS: Final = {kind.name: kind for kind in (FORGEJO_MCP, GITEA_MCP)}

INHERITED: Final = ("PATH", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""The only variables of ours that a child sees.  None of them is a secret or
gives a child a power: programs, texts, times, and which authorities to trust."""

_DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

_REFUSED: Final = frozenset({"FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD", "FORGEJO_MCP_UPLOAD_ROOT"})
"""With these forgejo-mcp uploads files of this machine on a caller's word:
`/proc/<pid>/environ` of another person's child, say."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")
_PLACEHOLDERS: Final = frozenset({"url", "token", "user_agent"})


@frozen
class Recipe:
    """
    How the operator wants a child started.

    Words of `argv` and values of `env` may contain `{url}`, `{token}` and
    `{user_agent}`; nothing else in braces means anything.
    """

    kind: ChildKind
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()

    @property
    def program(self) -> str:
        """The program, for the log."""
        return self.argv[0]

    @property
    def token_in_argv(self) -> bool:
        """Whether every user of this machine could read the token with `ps`."""
        return any("{token}" in word for word in self.argv)

    def problems(self) -> list[str]:
        """What is wrong with it, a sentence each; empty when it can be used."""
        if not self.argv or not self.argv[0]:
            return ["the command of the child is empty"]
        found = [
            f"{{{name}}} in the child's {place} is none of {{url}}, {{token}} and {{user_agent}}"
            for place, text in (
                *(("command", word) for word in self.argv),
                *((f"variable {name}", value) for name, value in self.env),
            )
            for name in _PLACEHOLDER.findall(text)
            if name not in _PLACEHOLDERS
        ]
        for name, _ in self.env:
            if not _VARIABLE.match(name):
                found.append(f"{name!r} is no name of an environment variable")
            elif name in _REFUSED:
                found.append(f"{name} would let callers upload files of this machine")
        if self.kind.token_variable is None and not self._mentions("token"):
            found.append(
                "the child gets no token: name its variable, as in --child-env 'TOKEN={token}'"
            )
        return found

    def _mentions(self, name: str) -> bool:
        placeholder = f"{{{name}}}"
        texts = (*self.argv, *(value for _, value in self.env))
        return any(placeholder in text for text in texts)


def recipe_for(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Recipe:
    """
    The recipe for a program and its arguments; its name tells the kind.

    :param argv: the program first; a relative path is taken from here, since
        children do not run in the daemon's directory.
    :param env: variables with templates, beside those of the kind.
    """
    words = list(argv)
    kind = OTHER
    if words:
        kind = _KINDS.get(os.path.basename(words[0]), OTHER)
        if os.sep in words[0]:
            words[0] = os.path.abspath(words[0])
    return Recipe(kind, tuple(words), tuple((env or {}).items()))


@frozen
class Command:
    """
    What to execute for one credential.

    :ivar token: the text that is blanked wherever the child says it.
    """

    kind: ChildKind
    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    token: str = field(repr=False)

    @property
    def program(self) -> str:
        """The program, for the log."""
        return self.argv[0]


def command_for(
    recipe: Recipe,
    *,
    url: str,
    token: str,
    user_agent: str,
    inherited: Mapping[str, str],
) -> Command:
    """
    Fill a recipe in.

    :param url: where this child reaches the forge.
    :param token: what it shows there.
    :param user_agent: `fjmcp/<version>`.
    :param inherited: our own environment, of which `INHERITED` is taken.
    """
    values = {"url": url, "token": token, "user_agent": user_agent}

    def filled(template: str) -> str:
        # One pass: a value that looks like a placeholder is not filled again.
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)

    kind = recipe.kind
    env = {"PATH": _DEFAULT_PATH, "HOME": "/nonexistent"}
    env.update((name, inherited[name]) for name in INHERITED if inherited.get(name))
    env.update(kind.constants)
    for variable, value in (
        (kind.url_variable, url),
        (kind.token_variable, token),
        (kind.user_agent_variable, user_agent),
    ):
        if variable is not None:
            env[variable] = value
    env.update((name, filled(template)) for name, template in recipe.env)
    return Command(kind, tuple(filled(word) for word in recipe.argv), env, token)
