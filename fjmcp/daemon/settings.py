"""
What the daemon runs with: every option judged, and all problems at once.

A flag wins over the environment, that over the file, that over the default.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from fjmcp.children.profiles import Recipe, recipe_for
from fjmcp.daemon import shapes
from fjmcp.daemon.preregistered import Preregistered
from fjmcp.daemon.sources import Given, Problem, Said, from_environment, from_file, from_flags
from fjmcp.daemon.table import BY_NAME, TABLE
from fjmcp.forge.admission import Admission
from fjmcp.oauth.clientele import Clientele
from fjmcp.oauth.clients import Client
from fjmcp.store.keys import KeySources
from fjmcp.web.addresses import Proxies

CLIENT_SECRET: Final = "fjmcp.forgejo-oauth-client-secret"
"""The name of the systemd credential with Forgejo's client secret."""

SECRET_LIMIT: Final = 4096
"""Bytes that a file with a secret may hold; more is another file."""

# Of each of these only one can hold.
_SECRET: Final = ("forgejo-oauth-client-secret", "forgejo-oauth-client-secret-file")
_CHILD: Final = ("child-command", "forgejo-mcp-binary")

_PREREGISTERED: Final = "preregistered-client"
_PEOPLE: Final = ("allow-users", "allow-orgs", "deny-admins")


@frozen(kw_only=True)
class Settings:
    """
    A configuration that can be run.  Times are seconds.

    :ivar listen: an endpoint description for `strports.service`.
    :ivar public_url: scheme, host, and port where it is not the usual one.
    :ivar trusted_proxies: whose word about addresses is taken; None if nobody said.
    :ivar forgejo_url: without a slash at its end; may have a path.
    :ivar forgejo_oauth_scopes: separated by single spaces.
    :ivar keys: where the key ring is looked for.
    :ivar child: how a child is started.
    :ivar max_sessions: live children in total.
    :ivar metrics_listen: as `listen`, for /metrics; None for none.
    :ivar clients: which clients are taken.
    :ivar registration: whether strangers may register clients.
    :ivar preregistered_clients: those that are written in the configuration.
    :ivar allowed_origins: of web pages that may call, each as browsers spell it.
    :ivar allow_users: logins; none is no list.
    :ivar allow_orgs: organizations, and teams as `organization:team`; likewise.
    :ivar deny_admins: whether administrators of that Forgejo are kept out.
    """

    listen: str
    public_url: str
    trusted_proxies: Proxies | None
    forgejo_url: str
    forgejo_oauth_client_id: str
    forgejo_oauth_client_secret: str = field(repr=False)
    forgejo_oauth_scopes: str
    store: Path
    keys: KeySources
    child: Recipe
    max_sessions: int
    session_idle_timeout: float
    session_reap_interval: float
    token_refresh_lead: float
    token_refresh_interval: float
    unknown_session_status: int
    require_session_id: bool
    debug: bool
    metrics_listen: str | None = None
    clients: Clientele = field(factory=Clientele)
    registration: bool = True
    preregistered_clients: tuple[Client, ...] = ()
    allowed_origins: frozenset[str] = frozenset()
    allow_users: frozenset[str] = frozenset()
    allow_orgs: frozenset[str] = frozenset()
    deny_admins: bool = False

    @property
    def admission(self) -> Admission:
        """Who may come in."""
        return Admission(self.allow_users, self.allow_orgs, self.deny_admins)


@frozen
class Gathered:
    """The settings, or None and the problems; warnings are for the log."""

    settings: Settings | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


def gather(flags: Mapping[str, object], environ: Mapping[str, str]) -> Gathered:
    """
    Read every source and judge every option.

    `flags` is what `usage.Options` collected; `environ` the environment.
    Files that the options name are read here: the TOML file, a secret.
    """
    said = [from_flags(flags), from_environment(environ)]
    said.append(_file(said))
    judged = _Judge(said, environ)
    return judged.gathered()


def _file(said: Sequence[Said]) -> Said:
    for source in said:
        if "config" in source.given:
            text = source.given["config"].text
            assert isinstance(text, str), "config is said once"
            try:
                return from_file(shapes.path(text))
            except ValueError as error:
                where = source.given["config"].where
                return Said(problems=(Problem(str(error), BY_NAME["config"], where),))
    return Said()


@define
class _Judge:
    """Collects what is wrong while it puts the settings together."""

    said: Sequence[Said]
    """Strongest first."""
    environ: Mapping[str, str] = field(repr=False)
    problems: list[Problem] = field(factory=list)
    warnings: list[str] = field(factory=list)

    def gathered(self) -> Gathered:
        for source in self.said:
            self.problems.extend(source.problems)
            self.warnings.extend(source.warnings)
        values = {
            option.name: self.value(option.name)
            for option in TABLE
            if option.name not in {"config", *_SECRET, *_CHILD, "child-env", _PREREGISTERED}
        }
        secret = self.client_secret()
        child = self.child()
        preregistered = self.preregistered()
        store = values["store"] if self.find("store") else self.default_store()
        admission = self.admission(values)
        settings = None
        if not self.problems:
            assert child is not None and secret is not None and store is not None
            settings = Settings(
                listen=values["listen"],
                public_url=values["public-url"],
                trusted_proxies=values["trusted-proxies"],
                forgejo_url=values["forgejo-url"],
                forgejo_oauth_client_id=values["forgejo-oauth-client-id"],
                forgejo_oauth_client_secret=secret,
                forgejo_oauth_scopes=values["forgejo-oauth-scopes"],
                store=store,
                keys=KeySources.gather(values["key-file"], self.environ, store),
                child=child,
                max_sessions=values["max-sessions"],
                session_idle_timeout=values["session-idle-timeout"],
                session_reap_interval=values["session-reap-interval"],
                token_refresh_lead=values["token-refresh-lead"],
                token_refresh_interval=values["token-refresh-interval"],
                unknown_session_status=values["unknown-session-status"],
                require_session_id=values["require-session-id"],
                debug=values["debug"],
                metrics_listen=values["metrics-listen"],
                clients=values["clients"],
                registration=values["registration"],
                preregistered_clients=preregistered,
                allowed_origins=values["allowed-origins"],
                allow_users=admission.users,
                allow_orgs=admission.orgs,
                deny_admins=admission.deny_admins,
            )
        return Gathered(settings, tuple(self.problems), tuple(self.warnings))

    def problem(self, what: str, name: str, where: str = "") -> None:
        self.problems.append(Problem(what, BY_NAME[name], where))

    def find(self, *names: str) -> tuple[str, Given] | None:
        """
        The strongest word on options of which only one can hold.

        Two of them in one source are a problem; a stronger source simply wins.
        """
        for source in self.said:
            here = [name for name in names if name in source.given]
            if len(here) > 1:
                self.problem(
                    f"cannot be given together with {BY_NAME[here[1]].flag}",
                    here[0],
                    source.given[here[0]].where,
                )
            if here:
                return here[0], source.given[here[0]]
        return None

    def value(self, name: str) -> Any:
        """The value of one option by itself; None if it has none or a bad one."""
        option = BY_NAME[name]
        found = self.find(name)
        if found is None and option.default is None:
            if option.required and not any(p.option is option for p in self.problems):
                self.problem("is missing", name)
            return None
        where = found[1].where if found else "its default"
        text = found[1].text if found else option.default
        assert isinstance(text, str), "only MANY has several texts"
        return self.read(name, text, where)

    def read(self, name: str, text: str, where: str) -> Any:
        try:
            return BY_NAME[name].read(text)
        except ValueError as error:
            self.problem(str(error), name, where)
            return None

    def admission(self, values: Mapping[str, Any]) -> Admission:
        """Who may come in; it must be possible to see who is."""
        users, orgs = values["allow-users"] or (), values["allow-orgs"] or ()
        rule = Admission(users, orgs, bool(values["deny-admins"]))
        scopes = values["forgejo-oauth-scopes"]
        lacking = rule.lacks(scopes) if isinstance(scopes, str) else []
        if lacking:
            said = [name for name in _PEOPLE if values[name]]
            self.problem(
                f"must allow {' and '.join(lacking)}, or it cannot be seen who may come in by"
                f" {' and '.join(BY_NAME[name].flag for name in said)}",
                "forgejo-oauth-scopes",
            )
        return rule

    def default_store(self) -> Path | None:
        # systemd separates several folders by colons.
        folder = self.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        where = "$STATE_DIRECTORY" if folder else "its default"
        path: Path | None = self.read("store", os.path.join(folder, "fjmcp.sqlite3"), where)
        return path

    def client_secret(self) -> str | None:
        found = self.find(*_SECRET)
        credentials = self.environ.get("CREDENTIALS_DIRECTORY", "")
        if found is None:
            file = Path(credentials) / CLIENT_SECRET
            if not credentials or not file.exists():
                self.problem("is missing", "forgejo-oauth-client-secret-file")
                return None
            return self.secret_in(file, f"the systemd credential {CLIENT_SECRET}")
        name, given = found
        assert isinstance(given.text, str), "a secret is said once"
        if name == "forgejo-oauth-client-secret":
            if given.where == BY_NAME[name].flag:
                self.warnings.append(
                    f"{given.where} on the command line can be read by every user of this"
                    f" machine; use {BY_NAME[name].flag}-file or {BY_NAME[name].variable}"
                )
            self.warn_if_shared(given)
            value: str | None = self.read(name, given.text, given.where)
            return value
        path: Path | None = self.read(name, given.text, given.where)
        return None if path is None else self.secret_in(path, given.where, private=True)

    def warn_if_shared(self, given: Given) -> None:
        """Say so of a secret whose file is for everybody, once."""
        words = f"the secret of {given.where} can be read by every user of this machine; chmod 640"
        if given.shared and words not in self.warnings:
            self.warnings.append(words)

    def secret_in(
        self,
        path: Path,
        where: str,
        private: bool = False,
        name: str = "forgejo-oauth-client-secret-file",
    ) -> str | None:
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(SECRET_LIMIT + 1)
            if len(text) > SECRET_LIMIT:
                raise ValueError("it holds more than a secret")
            secret = shapes.printable(text.decode("ascii"))
        except OSError as error:
            self.problem(f"{path} cannot be read: {error.strerror}", name, where)
        except UnicodeDecodeError:
            self.problem(f"{path} is no secret: it is not plain text", name, where)
        except ValueError as error:
            self.problem(f"{path} is no secret: {error}", name, where)
        else:
            if private and mode & stat.S_IROTH:
                self.warnings.append(f"{path} holds a secret and every user can read it; chmod 640")
            return secret
        return None

    def child(self) -> Recipe | None:
        name, given = self.find(*_CHILD) or (
            "forgejo-mcp-binary",
            Given(BY_NAME["forgejo-mcp-binary"].default or "", "its default"),
        )
        assert isinstance(given.text, str), "a command is said once"
        argv: list[str] = []
        text = self.read(name, given.text, given.where)
        if text is not None:
            try:
                argv = shlex.split(text) if name == "child-command" else [text]
            except ValueError as error:
                self.problem(f"cannot be split into words: {error}", name, given.where)
        variables = self.variables()
        if not argv or variables is None:
            return None
        program = shutil.which(argv[0], path=self.environ.get("PATH"))
        if program is None:
            self.problem(f"{argv[0]!r} is no program that can be run here", name, given.where)
        recipe = recipe_for([program or argv[0], *argv[1:]], variables)
        if recipe.token_in_argv:
            self.problem(
                "has {token} in it, and every user of this machine can read a command line;"
                " hand it over by --child-env 'NAME={token}'",
                name,
                given.where,
            )
        else:
            for what in recipe.problems():
                self.problem(what, name, given.where)
        return recipe

    def preregistered(self) -> tuple[Client, ...]:
        found = self.find(_PREREGISTERED)
        if found is None:
            return ()
        given = found[1]
        texts = [given.text] if isinstance(given.text, str) else list(given.text)
        made: dict[str, Client] = {}
        for text in texts:
            client = self.preregistered_client(text, given)
            if client is not None and client.client_id in made:
                self.problem(f"has the id {client.client_id} twice", _PREREGISTERED, given.where)
            elif client is not None:
                made[client.client_id] = client
        return tuple(made.values())

    def preregistered_client(self, text: str, given: Given) -> Client | None:
        where = given.where
        said: Preregistered | None = self.read(_PREREGISTERED, text, where)
        if said is None:
            return None
        secret = said.secret
        if secret is not None:
            self.warn_if_shared(given)
        if secret is not None and where == BY_NAME[_PREREGISTERED].flag:
            self.warnings.append(
                f"a secret in {where} on the command line can be read by every user of this"
                " machine; use secret-file="
            )
        if said.secret_file is not None:
            secret = self.secret_in(said.secret_file, where, private=True, name=_PREREGISTERED)
        return said.client(secret)

    def variables(self) -> dict[str, str] | None:
        found = self.find("child-env")
        if found is None:
            return {}
        given = found[1]
        pairs = [given.text] if isinstance(given.text, str) else list(given.text)
        split = [pair.partition("=") for pair in pairs]
        for variable, equals, _ in split:
            if not equals or not variable:
                # Not quoted: without the name it may be a secret.
                self.problem("is not of the form NAME=TEXT", "child-env", given.where)
                return None
        return {variable: text for variable, _, text in split}
