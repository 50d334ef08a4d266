"""
The options of `twistd fjmcp`, one table.

`--help`, docs/configuration.md, the environment's names and the file's keys are
made from it.  An option is here only once it does something.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from attrs import field, frozen

from fjmcp import limits
from fjmcp.daemon import preregistered, shapes
from fjmcp.forge import scopes
from fjmcp.oauth.clientele import Clientele


class Kind(Enum):
    """How an option is given."""

    VALUE = "value"
    SWITCH = "switch"
    MANY = "many"
    """May be repeated; in the environment separated by spaces, quoted as in a shell."""


@frozen
class Option:
    """
    One thing that an operator can say.

    `reason` is what it is for and why one would change it; `shape` the word
    for its value in `--help`; `default` is text, judged like any other; None
    where there is none: then `absent` says what happens, or it is required.
    """

    name: str
    group: str
    reason: str
    read: Callable[[str], Any] = field(repr=False)
    shape: str = ""
    example: str = ""
    default: str | None = None
    absent: str = ""
    kind: Kind = Kind.VALUE
    secret: bool = False
    """Its text is shown nowhere."""
    in_file: bool = True
    """Whether the TOML file may say it."""

    @property
    def flag(self) -> str:
        """`--public-url`"""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """`FJMCP_PUBLIC_URL`"""
        return f"FJMCP_{self.name.replace('-', '_').upper()}"

    @property
    def required(self) -> bool:
        """Whether nothing starts without it."""
        return self.default is None and not self.absent


WHERE: Final = "Where it is"
FORGE: Final = "The Forgejo behind it"
PEOPLE: Final = "Who may come in"
MEMORY: Final = "What it remembers"
CHILDREN: Final = "The MCP servers it starts"
CLIENTS: Final = "How it treats clients"
ITSELF: Final = "The daemon itself"

TABLE: Final[tuple[Option, ...]] = (
    Option(
        "public-url",
        WHERE,
        "The URL by which clients reach this daemon, without a path. People paste it with /mcp"
        " behind it, and every document and token names it, so it must not change. https, unless"
        " its host is this machine.",
        shapes.public_url,
        "URL",
        "https://mcp.example.org",
    ),
    Option(
        "listen",
        WHERE,
        "Where to accept connections: host:port, :port for every address, or an endpoint string of"
        " Twisted's (unix:…, tls:…, systemd:domain=INET:name=fjmcp). Usually a reverse proxy with"
        " the certificate stands in front, so only this machine is served by default.",
        shapes.listen,
        "ADDRESS",
        "unix:/run/fjmcp/http.sock",
        default="127.0.0.1:8080",
    ),
    Option(
        "trusted-proxies",
        WHERE,
        "The reverse proxies whose word about a client's address is taken, separated by spaces:"
        " addresses or networks, and unix for whatever comes through a Unix socket. They must"
        " append the address that they see to X-Forwarded-For; with the word forwarded among them,"
        " to Forwarded instead. The word none says that clients connect without a proxy. As long"
        " as nothing is said, no address is known, and the rate limits count clients, grants and"
        " everybody together, but no addresses.",
        shapes.trusted_proxies,
        "NETWORKS",
        "127.0.0.1 ::1",
        absent="no address is known",
    ),
    Option(
        "forgejo-url",
        FORGE,
        "The Forgejo where people sign in and where their assistants work. Their browsers and the"
        " MCP servers use the same URL.",
        shapes.forge_url,
        "URL",
        "https://git.example.org",
    ),
    Option(
        "forgejo-oauth-client-id",
        FORGE,
        "The id of the OAuth2 application that was made for fjmcp at that Forgejo (Site"
        " administration, Integrations, Applications), a confidential client with the redirect"
        " URI <public-url>/oauth/callback.",
        shapes.printable,
        "ID",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
    ),
    Option(
        "forgejo-oauth-client-secret-file",
        FORGE,
        "A file that holds the secret of that application and nothing else. The systemd credential"
        " fjmcp.forgejo-oauth-client-secret is read without being named.",
        shapes.path,
        "FILE",
        "/etc/fjmcp/client-secret",
        absent="the systemd credential, or the option below",
    ),
    Option(
        "forgejo-oauth-client-secret",
        FORGE,
        "The secret itself. Best in the environment or in a file: everybody on this machine can"
        " read a command line.",
        shapes.printable,
        "SECRET",
        "gto_…",
        absent="the file or the systemd credential",
        secret=True,
    ),
    Option(
        "forgejo-oauth-scopes",
        FORGE,
        "What to ask Forgejo for, separated by spaces. It bounds what any assistant can do for"
        " anybody here. A misspelt scope would be granted as everything, so unknown ones are"
        " refused. write:user is left out by default: it can add SSH keys and e-mail addresses.",
        shapes.forge_scopes,
        "SCOPES",
        "openid profile read:user read:repository read:issue",
        default=scopes.DEFAULT,
    ),
    Option(
        "allow-users",
        PEOPLE,
        "The logins at Forgejo that may come in, separated by spaces and compared without case."
        " Forgejo is asked at each sign-in, and each time that a person's token is refreshed, about"
        " once an hour of work: who may not come in any more has to stop then. Where people can"
        " rename their accounts a login may come to be somebody else's; name organizations there.",
        shapes.logins,
        "LOGINS",
        "alice bob",
        absent="everybody who can sign in there, unless --allow-orgs says otherwise",
    ),
    Option(
        "allow-orgs",
        PEOPLE,
        "The organizations at Forgejo whose members may come in, and, as organization:team, the"
        " teams whose members may, separated by spaces and compared without case. Forgejo is asked"
        " as for --allow-users, about each of these by its name, so that there may be at most"
        f" {limits.ALLOWED_ORGS}; with both lists either suffices. --forgejo-oauth-scopes must"
        " allow read:user and read:organization, as they do by default.",
        shapes.organizations,
        "ORGS",
        "gardeners allotment:keepers",
        absent="everybody who can sign in there, unless --allow-users says otherwise",
    ),
    Option(
        "deny-admins",
        PEOPLE,
        "Let no administrator of that Forgejo in, whatever the two lists say: an assistant would"
        " have their reach.",
        shapes.switch,
        example="true",
        default="false",
        kind=Kind.SWITCH,
    ),
    Option(
        "store",
        MEMORY,
        "The SQLite file of clients, grants and sealed credentials: a path, or sqlite:///name"
        " (sqlite:////folder/name for an absolute one). It is made if it is missing.",
        shapes.store,
        "PATH",
        "/var/lib/fjmcp/fjmcp.sqlite3",
        absent="fjmcp.sqlite3 in systemd's $STATE_DIRECTORY, else in the working directory",
    ),
    Option(
        "key-file",
        MEMORY,
        "The keys that seal people's Forgejo credentials, one a line; keep a copy apart from the"
        " store. fjmcp keys rotate changes them while the daemon works. Without the option: the"
        " systemd credential fjmcp.keys, the text in FJMCP_KEYS, or a file beside the store, which"
        " is made for an empty store.",
        shapes.path,
        "FILE",
        "/etc/fjmcp/keys",
        absent="the store's name with .keys, beside it",
    ),
    Option(
        "forgejo-mcp-binary",
        CHILDREN,
        "The MCP server that is started for each person: forgejo-mcp or gitea-mcp, by name or by"
        " path. It gets the person's token in its environment.",
        shapes.anything,
        "PROGRAM",
        "/usr/local/bin/forgejo-mcp",
        default="forgejo-mcp",
    ),
    Option(
        "child-command",
        CHILDREN,
        "Instead of the binary: a whole command, quoted as in a shell, in which {url} is the"
        " forge's URL and {user_agent} ours. {token} is refused here, since everybody on this"
        " machine can read a command line; it goes into --child-env.",
        shapes.anything,
        "COMMAND",
        "my-mcp --stdio --forge {url}",
        absent="the binary above",
    ),
    Option(
        "child-env",
        CHILDREN,
        "A variable for the environment of the MCP servers, which otherwise is empty but for PATH,"
        " HOME, LANG, TZ and what the server needs to know. {url}, {token} and {user_agent} are"
        " filled in. May be repeated.",
        shapes.anything,
        "NAME=TEXT",
        "MY_MCP_TOKEN={token}",
        absent="nothing is added",
        kind=Kind.MANY,
    ),
    Option(
        "max-sessions",
        CHILDREN,
        "How many MCP servers may run at once. At the bound the one that was idle longest makes"
        " room; its sessions go on when they are used again. A forgejo-mcp takes some 6 MB.",
        shapes.between(shapes.count, 1, 100_000, "1 to 100000"),
        "NUMBER",
        "50",
        default=str(limits.CHILDREN),
    ),
    Option(
        "session-idle-timeout",
        CHILDREN,
        "How long a child may be idle before it is ended. Its sessions go on with another one at"
        " their next request.",
        shapes.between(shapes.duration, 1, 30 * 86400, "1 s to 30 d"),
        "TIME",
        "1h",
        default=shapes.time_words(limits.SESSION_IDLE),
    ),
    Option(
        "session-reap-interval",
        CHILDREN,
        "How often it is looked for idle children.",
        shapes.between(shapes.duration, 1, 3600, "1 s to 1 h"),
        "TIME",
        "1m",
        default=shapes.time_words(limits.REAP),
    ),
    Option(
        "token-refresh-lead",
        FORGE,
        "How long before its end a token of Forgejo's is refreshed. Forgejo's live an hour; no"
        " call should outlast the lead.",
        shapes.between(shapes.duration, 1, 3599, "1 s to just under 1 h"),
        "TIME",
        "10m",
        default=shapes.time_words(limits.REFRESH_LEAD),
    ),
    Option(
        "token-refresh-interval",
        FORGE,
        "How often it is looked for tokens of Forgejo's that end soon, and for children that were"
        " started with an older one, which are replaced then.",
        shapes.between(shapes.duration, 1, 3600, "1 s to 1 h"),
        "TIME",
        "5m",
        default=shapes.time_words(limits.ROTATE),
    ),
    Option(
        "unknown-session-status",
        CLIENTS,
        "The HTTP status for a session that is not known. 404 is what MCP says, and clients answer"
        " it with a fresh session; 410 is for those that were built against the original.",
        shapes.one_of(404, 410),
        "404|410",
        "410",
        default="404",
    ),
    Option(
        "require-session-id",
        CLIENTS,
        "Refuse a request of the older protocol revisions that names no session. Some clients"
        " forget it; without this option they are served.",
        shapes.switch,
        example="true",
        default="false",
        kind=Kind.SWITCH,
    ),
    Option(
        "clients",
        CLIENTS,
        "Which assistants may be connected, by the address that they come back to: any; or,"
        " separated by spaces, known (Claude, ChatGPT, VS Code and Cursor at the addresses that"
        " they are known to use, and programs on people's own computers), loopback (those programs"
        " alone) and host names. The hosts of metadata documents count too. A client that was"
        " taken before and is not any more gets no new tokens.",
        Clientele.parse,
        "WORDS",
        "known assistant.example.org",
        default="any",
    ),
    Option(
        "registration",
        CLIENTS,
        "Whether clients may register themselves, as most assistants do. Without it only those can"
        " connect that registered before, have a metadata document, or are of"
        " --preregistered-client.",
        shapes.switch,
        example="false",
        default="true",
        kind=Kind.SWITCH,
    ),
    Option(
        "preregistered-client",
        CLIENTS,
        "A client that you make up yourself, to be typed into an assistant's advanced settings:"
        " id=…, redirect=… (one for each address that it comes back to), and if it wants a secret"
        " secret-file=… (or secret=…); name=… is what people are shown. In a file it is a table of"
        " these, [[preregistered-client]]. May be repeated.",
        preregistered.parse,
        "CLIENT",
        "id=our-claude redirect=https://claude.ai/api/mcp/auth_callback"
        " secret-file=/etc/fjmcp/our-claude.secret",
        absent="there is none",
        kind=Kind.MANY,
    ),
    Option(
        "allowed-origins",
        CLIENTS,
        "The web pages that may work with this daemon from a browser, as an MCP client does:"
        " scheme://host:port of each, separated by spaces; https, or http on the person's own"
        " computer. Whoever can change such a page, or serve at that host and port, is trusted with"
        " the tokens that it gets. Pages elsewhere cannot call /mcp and can read nothing; programs"
        " and hosted assistants, which are no pages, never need this. The word none allows no"
        " page.",
        shapes.origins,
        "ORIGINS",
        "http://localhost:6274",
        default="none",
    ),
    Option(
        "debug",
        ITSELF,
        "Log every request and what the MCP servers write to stderr. Secrets are blanked as ever.",
        shapes.switch,
        example="true",
        default="false",
        kind=Kind.SWITCH,
    ),
    Option(
        "metrics-listen",
        ITSELF,
        "Where to serve /metrics, for Prometheus: as --listen, but a listener of its own, since"
        " the numbers are for nobody outside. docs/operations.md explains each of them.",
        shapes.listen,
        "ADDRESS",
        "127.0.0.1:9180",
        absent="nothing is counted",
    ),
    Option(
        "config",
        ITSELF,
        "A TOML file with these options as keys, without the dashes in front:"
        ' public-url = "https://…".',
        shapes.path,
        "FILE",
        "/etc/fjmcp/fjmcp.toml",
        absent="no file is read",
        in_file=False,
    ),
)

BY_NAME: Final = {option.name: option for option in TABLE}

EXTRA_VARIABLES: Final = {"FJMCP_KEYS": "the text of a key file (see key-file)"}
"""What else the environment may say; it has no flag, because it is a secret."""
