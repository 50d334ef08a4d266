"""
Every number that bounds something, with its reason.

Sizes are bytes, times are seconds, unless a name says otherwise.
An operator who asks "why that much?" finds the answer here.
"""

from __future__ import annotations

from typing import Final

# --- what a client may send -------------------------------------------------

MCP_BODY: Final = 8 * 1024 * 1024
"""One POST to /mcp.  forgejo-mcp needs about nine times a request's size in
memory (32 MiB took 293 MB), so 8 MiB keeps one call under 80 MB."""

BODIES_OF_STRANGERS: Final = 8 * MCP_BODY
"""What is held together of bodies that are on their way, of senders whose token
was not seen before.  A client's first message is small; these are the large
ones just after a restart."""

BODIES_OF_ACCOUNT: Final = 16 * MCP_BODY
"""The same, of one account, and of those that wait for a child or for its answer: as
many as one child takes at a time."""

ASKED_AGAIN: Final = 64 * 1024
"""The params of a call that is kept until its answer, to be asked again should its
child crash (design D5).  What only reads is told by a few names and words, under
4 KiB."""

FORM_BODY: Final = 16 * 1024
"""A form at an OAuth endpoint; the largest honest one is some 3 KiB."""

REGISTRATION_BODY: Final = 16 * 1024
"""A registration: ten redirect URIs of 1 KiB and room for the rest."""

PARAMETERS: Final = 100
"""Parameters of one query or form; an honest one has a dozen."""

JSON_DEPTH: Final = 128
"""Brackets within brackets in one message.  Tool arguments nest a few deep;
parsers behind us recurse once a level."""

REQUEST_ID: Final = 256
"""The JSON text of a request's id, which is kept and sent back."""

METHOD: Final = 256
"""Characters of a method's name, which is logged; the longest of MCP has 41."""

CAPABILITIES: Final = 16 * 1024
"""What a client says in `initialize` that it can do, which is kept with each
of its sessions; honest ones are under 1 KiB."""

SUBSCRIPTIONS: Final = 256
"""Resources that one session subscribes to; a successor of its child is told
each of them."""

SUBSCRIPTION: Final = 2048
"""The JSON text of one such resource's URI."""

# --- OAuth ------------------------------------------------------------------

CLIENTS: Final = 15_000
"""Registered clients that nobody has used.  Past it the oldest make room:
registration is open to everybody, and each keeps up to 16 KiB.  As many again that
were used and have no live grant; of those, the longest unused go first."""

CLIENT_UNUSED: Final = 24 * 3600.0
"""What nobody has connected with goes after so long, a registration or a document: a
person who went to find a password comes back the same day, and a client registers
again, or has its document fetched again."""

CLIENT_IDLE: Final = 365 * 86400.0
"""One that did, and has no live grant, so long after its last: assistants keep the
id that they were given, and show an error page once it is unknown."""

TWIN: Final = 60.0
"""Registrations with equal metadata within it are one client, as long as it is not
used: claude.ai registers twice, a second apart."""

TWINS: Final = 10
"""Registrations that one client may have so; the next one is another client."""

REDIRECT_URIS: Final = 10
"""Redirect URIs of one client; VS Code registers six, the most seen."""

REDIRECT_URI: Final = 2048
"""Characters of one redirect URI: what browsers and proxies carry safely."""

CLIENT_NAME: Final = 100
"""Characters of a client's name; more would push the consent page's
warning out of sight."""

CLIENT_STATE: Final = 2048
"""Characters of a client's `state`, which travels in two URLs."""

SIGN_IN: Final = 10 * 60.0
"""From the consent page to Forgejo's callback: time to find a password."""

KNOWN_BROWSER: Final = 30 * 86400.0
"""How long a browser is known as the account that last signed in there: the life
of its cookie (design D13)."""

CONSENT_KEPT: Final = 30 * 86400.0
"""How long a person who allowed something is not asked the same again in a
browser that is known (design D13)."""

BROWSERS_PER_ACCOUNT: Final = 50
"""Browsers known as one account; the one whose time ends first makes room.  A
private window is a new one each time."""

CONSENTS_PER_ACCOUNT: Final = 200
"""Remembered consents of one account; the one that ends first makes room.
claude.ai registers anew for each connection, and each is a consent of its own."""

CODE: Final = 60.0
"""Life of an authorization code (RFC 6749 §4.1.2 allows ten minutes; the
client redeems it in the same second)."""

ACCESS_TOKEN: Final = 8 * 3600.0
"""Life of our access tokens: hosted clients refresh badly, a working day
passes without one (design D14)."""

REFRESH_GRACE: Final = 60.0
"""How long a used refresh token is answered again with the same successor:
two threads of one client race within seconds (design D14)."""

GRANT_IDLE: Final = 60 * 86400.0
"""A grant that nobody used for so long ends (design D14)."""

GRANT_LIFE: Final = 365 * 86400.0
"""A grant ends a year after consent, used or not (design D14)."""

GRANTS_PER_ACCOUNT: Final = 50
"""Live grants of one account; the longest idle one makes room."""

PERSONAL_TOKEN: Final = 90 * 86400.0
"""Life of a token that an operator makes for a program, unless they say otherwise: who
put it where, and whether it is still needed, is asked four times a year."""

PERSONAL_TOKEN_LEAST: Final = 60.0
"""The shortest life of one; less is a slip of the keyboard."""

PENDING_SIGN_INS: Final = 12_000
"""Rows of sign-ins under way; the oldest makes room.  Unauthenticated
callers make these rows."""

# --- Client ID Metadata Documents ---------------------------------------------------

DOCUMENT_URL: Final = 512
"""Characters of a URL that names a client; honest ones have under 100."""

DOCUMENT_BODY: Final = 16 * 1024
"""One document: ten redirect URIs of 1 KiB and room for the rest, as in a
registration.  The draft recommends 5 KiB, and documents of known clients were
seen to outgrow that."""

DOCUMENT_WIRE: Final = 128 * 1024
"""All that comes over the connection on which a document does: certificates,
headers and the body.  Nothing else bounds the headers."""

DOCUMENT_FETCH: Final = 5.0
"""A fetch, from the look-up of the name to the last byte.  A browser waits
meanwhile, and some clients give the whole step ten seconds."""

DOCUMENT_FETCHES: Final = 64
"""Fetches at a time, each of another document; an honest one takes some 200 ms.  More
than one address block may begin at once (`RATES_OF_ADDRESS`), however slow the
hosts that it names are."""

DOCUMENT_LOOKUP: Final = 1.5
"""A name server that says nothing for so long is asked once more, or the next one is:
a datagram may be lost, and the fetch still has time."""

DOCUMENT_ADDRESSES: Final = 8
"""Addresses of one name that are tried, one after the other; honest names have one to
four of each family."""

DOCUMENT_FRESH_LEAST: Final = 5 * 60.0
"""A document is not fetched again for so long, whatever its host says of caching:
VS Code's says no-store."""

DOCUMENT_FRESH_MOST: Final = 24 * 3600.0
"""Nor trusted longer without a look: a redirect URI that was withdrawn is
refused a day later."""

DOCUMENT_GRACE: Final = 7 * 86400.0
"""A document that cannot be fetched any more, or is wrong now, serves so long as
it was last good.  Hosts were down for hours; what was taken down on purpose
must not be good for ever."""

DOCUMENTS: Final = 1000
"""Documents that are kept and that nobody has used.  Past it the oldest make room.
As many again that were used and have no live grant, as with `CLIENTS`."""

RATE_OF_DOCUMENT_HOST: Final = (30, 2.0)
"""Fetches from one host, of documents that were not fresh.  Anybody can make us
ask any host; nobody should notice it there."""

RATE_OF_DOCUMENT_ADDRESS: Final = (60, 1.0)
"""Connections to one address (in IPv6 to one /64), by whatever names: names cost
nothing, and anybody's may lead to anybody.  Twice what one name has, since behind an
address of a large provider are many."""

# --- how often: so many at once, then one more every so many seconds -------------
# Keys are the doors of `fjmcp.web.rates`.  A person's sign-in passes register once
# or twice (claude.ai registers anew for each connection, often twice), authorize
# once, consent twice (the form, and Forgejo's redirect), token once; then token
# once in eight hours.

BLOCK_BITS_V4: Final = 24
"""What is one sender in IPv4: providers give out neighbouring addresses."""

BLOCK_BITS_V6: Final = 56
"""In IPv6: a household gets a /56 or a /64, and may use any address of it."""

WIDER_V4: Final = {16: 4}
"""The networks around a block that count, too, by their bits, and how many blocks'
share each has.  No holder of many neighbouring blocks can take what everybody has."""

WIDER_V6: Final = {48: 2, 32: 4}
"""In IPv6: whoever asks for a tunnel gets a /48, which is 256 blocks; a provider has
a /32."""

HOSTED_NETWORKS: Final = ("160.79.104.0/21",)
"""Where hosted assistants come from, each one sender with the rates of
`RATES_OF_HOSTED`: Anthropic's egress carries everybody's claude.ai, and a 429
there reads "Couldn't register" to a person who did nothing."""

RATES_OF_ADDRESS: Final = {
    "register": (60, 10.0),
    "authorize": (60, 5.0),
    "consent": (120, 2.5),
    "token": (240, 0.5),
}
"""Of one address block.  Sixty colleagues behind one address may connect at
once; a program in a circle is slowed to six registrations a minute."""

RATES_OF_HOSTED: Final = {
    "register": (500, 1.0),
    "authorize": (500, 1.0),
    "consent": (500, 0.5),
    "token": (2000, 0.02),
}
"""Of one network of hosted assistants: a thousand people may connect in ten minutes,
and each of a million grants refresh every eight hours.  It takes nothing of
`RATES_OF_ALL`, so that no flood from elsewhere stops what claude.ai itself sends."""

PAGES: Final = 4
"""How many blocks' share all web pages together have of `register` and `token`.  A page
can have each of its visitors knock there, out of a network of their own, and few
clients are pages."""

RATE_OF_CLIENT: Final = (120, 1.0)
"""Requests of one client for tokens, counted apart in each address block: anybody can
use the name of a client without a secret, and whoever registers the same as
another within `TWIN` has a secret of the same client.  One that is named by the
URL of its document is not counted: it is everybody's."""

RATE_OF_GRANT: Final = (60, 10.0)
"""Refreshes of one grant.  Clients race themselves, a dozen windows at once;
one that refreshes before every call gets six a minute and not a row each."""

RATES_OF_ALL: Final = {
    "register": (1000, 0.5),
    "authorize": (500, 1 / 15),
    "consent": (1000, 1 / 30),
    "token": (4000, 1 / 150),
}
"""Of everybody together but hosted assistants: all that is left of the limits where
addresses are not known.  `register`: so that a flood, of hosted assistants
included, needs an hour to drive out (`CLIENTS`) what somebody registered and has
not used yet.  `authorize`: so that fewer sign-ins begin within `SIGN_IN`, theirs
included, than there is room for (`PENDING_SIGN_INS`), and no flood drives out
anybody's.  `token`: with theirs 200 a second, what SQLite commits on a small disk."""

METERED: Final = 20_000
"""Senders of each kind that are remembered, some 200 bytes each.  Past it the
longest silent one is forgotten."""

# --- Forgejo ----------------------------------------------------------------

FORGE_CONNECT: Final = 10.0
"""To connect to Forgejo."""

FORGE_ANSWER: Final = 30.0
"""For an answer of Forgejo that changes nothing there (user, introspection)."""

FORGE_TOKEN: Final = 60.0
"""For Forgejo's token endpoint.  Long, because a reply that we do not read
burns the refresh token (design D8)."""

FORGE_BODY: Final = 1024 * 1024
"""An answer of Forgejo that we read ourselves; honest ones are under 8 KiB."""

FORGE_PAGE: Final = 50
"""Entries asked for in a page of a list: what Forgejo gives at most by default."""

FORGE_PAGES: Final = 20
"""Pages of the teams of one organization that have a name of `allow-orgs` in theirs.
A thousand of them is a fault; what stands behind is not found."""

FORGE_LOOK: Final = FORGE_ANSWER
"""One look at who somebody is, their organizations and teams included: a request
may be waiting for it."""

ALLOWED_ORGS: Final = 50
"""Organizations and teams in `allow-orgs`.  A look asks for each that somebody is
not in, for a team perhaps twice, and all of it within `FORGE_LOOK`."""

REFRESH_LEAD: Final = 5 * 60.0
"""Refresh a credential so long before it ends (design D7)."""

REFRESH_TOKEN: Final = 730 * 3600.0
"""Life of a refresh token at Forgejo, unless its administrator set another."""

SLEEPING_AGE: Final = REFRESH_TOKEN * 2 / 3
"""A credential that nobody used for so long is refreshed while a third of its
refresh token's life is left (design D7)."""

SLEEPING_REFRESHES: Final = 5
"""Of those so many at a sweep, so that a morning after a long stop is no flood."""

REFRESH_CLAIM: Final = FORGE_TOKEN + 15.0
"""Life of a claim to refresh: the call's limit and 15 s to commit (D8)."""

REFRESH_RETRY: Final = 15.0
"""After a troubled refresh, wait so long before the next try."""

REFRESH_POLL: Final = 0.25
"""Between two looks at a row whose refresh another process has claimed."""

REFRESH_SETTLE: Final = 5.0
"""After Forgejo refused a refresh, before the row is read again: another node
whose call won needs so long to commit at most (design D8)."""

REFRESH_PATIENCE: Final = 10.0
"""A request waits so long for a refresh while the old access token still
serves; past it, it works with the old one."""

REFRESH_ROUNDS: Final = 3
"""Refreshes that one request may see: its own, and those that a row which
changed meanwhile makes needful."""

EXCHANGE_CLAIM: Final = FORGE_TOKEN + FORGE_ANSWER + FORGE_LOOK + 15.0
"""From the start of a code exchange until its pair is in the account's row:
the exchange, introspection, the look at who it is, and 15 s to commit."""

PAIR_RETRY: Final = 1.0
"""Between two tries to store a pair while the store is down."""

PAIR_KEEP: Final = 10 * 60.0
"""A pair that the store does not take is kept in memory so long.  It is the
only copy; a disk that was full is usually mended by then."""

CREDENTIALS_SETTLE: Final = FORGE_TOKEN + 5.0
"""At a stop, for calls of the token endpoint in flight and their commits."""

FORGE_RETRY_AFTER: Final = 5 * 60.0
"""The longest that we let Forgejo's own Retry-After put off a refresh."""

FORGE_TOKEN_LENGTH: Final = 4096
"""Characters of one token of Forgejo, which travels in a header and in an
environment; a JWT under a 4096 bit key has some 900."""

FORGE_TOKEN_LIFE: Final = 3600.0
"""Life of an access token whose answer does not say: Forgejo's default."""

FORGE_ERROR: Final = 300
"""Characters of an error's description that go into the log."""

# --- children ---------------------------------------------------------------

CHILD_START: Final = 20.0
"""From spawn to the answer to `initialize`.  gitea-mcp takes 3 s on a quiet
machine; forgejo-mcp may hang here for ever with a dead forge."""

CHILD_LINE: Final = 64 * 1024 * 1024
"""One line of a child's stdout; file contents and attachments come inline."""

CHILD_STDERR_LINE: Final = 8 * 1024
"""One line of a child's stderr in our log; the rest of it is dropped."""

CHILD_STDERR_LINES: Final = 100
"""Lines of one child's stderr in our log every `CHILD_STDERR_WINDOW`; the rest
is counted.  forgejo-mcp says ten at its start and two a call."""

CHILD_STDERR_WINDOW: Final = 10.0
"""See above."""

CHILD_UNREAD: Final = 4 * MCP_BODY
"""Bytes written for a child that it has not read; a request past it is
refused.  A child that reads takes each line within milliseconds."""

CHILD_LINGER: Final = 2.0
"""After a child's process ended, before its pipes are let go of: a process
that it started and that hides from its group may hold them for ever."""

CHILD_RETRY: Final = 5.0
"""After a child of a grant failed to start, the grant gets the same refusal
so long: a broken binary is not started in a circle."""

CHILD_IN_FLIGHT: Final = 16
"""Requests in flight at one child; forgejo-mcp works on five at once and
queues the rest.  Past it another child starts (design D1)."""

CHILDREN: Final = 200
"""Live children in total (`--max-sessions`): about 1 GB of forgejo-mcp."""

CHILDREN_PER_ACCOUNT: Final = 20
"""Live children of one account."""

CHILD_STARTS: Final = (20, 1.0)
"""Starts of children of one account, so many at once and one more every so many
seconds: as many as it may have (`CHILDREN_PER_ACCOUNT`), after a restart of the
daemon say.  A start takes a process, and up to 3 s of a core with gitea-mcp; one
account that asked for ever new ones had forty in each second.  The successor that a
newer credential needs does not count."""

CHILD_STARTS_QUEUE: Final = 10
"""So many more of one account wait for their turn: somebody with more windows than
children sees slow answers for a while, and no refusals."""

DRAIN: Final = 20.0
"""A child that is replaced, and calls at shutdown, may go on so long."""

CLOSE_WAIT: Final = 3.0
"""After stdin was closed, before TERM (gitea-mcp takes 2.5 s to end)."""

TERM_WAIT: Final = 3.0
"""After TERM, before KILL; a hung forgejo-mcp ignores TERM."""

KILL_WAIT: Final = 5.0
"""After KILL, before we say in the log that the kernel keeps it."""

CANCELLED_CALL: Final = 10.0
"""After a call was cancelled, for the child's answer; many children, as they
should, give none."""

REPLAY: Final = 5.0
"""For a successor's answers to what it is told again: a log level, subscriptions.
A child that gives none is used all the same."""

ROOM: Final = 30.0
"""A request past `CHILD_IN_FLIGHT` of a session with a child of its own waits so
long for another one to end, since no second child can stand in for the first."""

ROOM_WAITERS: Final = 32
"""Requests that wait so at one child; each holds up to `MCP_BODY`."""

QUESTION: Final = 10 * 60.0
"""A child's question to a client: a person may have to read and decide, and the
call that it belongs to ends at `CALL`."""

QUESTIONS: Final = 32
"""Open questions of one child; an honest one asks once a call."""

OPENINGS: Final = 1000
"""Answers to `initialize` that are kept to be given again, a few KiB each."""

CALL: Final = 15 * 60.0
"""A request to a child without an answer: the longest client waits 5 min."""

# --- sessions and streams -----------------------------------------------------

SESSIONS_PER_CONNECTION: Final = 200
"""Sessions of one account and client; the longest unused one is forgotten."""

SESSIONS_PER_ACCOUNT: Final = 2000
"""Sessions of one account, over all its clients: registering one costs nothing.  As
many as ten assistants have that open one for each call and end none.  Past it the
longest unused one without a stream or a child of its own is forgotten.  Each keeps
up to `CAPABILITIES`, so that an account has 40 MB at most."""

SESSION_UNUSED: Final = 3600.0
"""A session that nobody used after `initialize` is kept so long: clients go on within
the second.  It has no row."""

SESSION_LIFE: Final = 30 * 86400.0
"""A session is kept so long after its last use (design D2)."""

JSON_ANSWER: Final = 10.0
"""An answer within it is one JSON response, else a stream (design §3)."""

SESSION_KEEP: Final = 5.0
"""After the store took no row of a session, none is offered to it for so long:
each request would wait for it."""

STREAM_COMMENT: Final = 15.0
"""Between two comments on a silent stream, so that proxies keep it."""

STREAM_BEHIND: Final = 1024 * 1024
"""Bytes that may wait behind the message being written (design D21)."""

STREAMS_PER_ACCOUNT: Final = 100
"""Open GET streams of one account; the oldest is closed.  Each is a connection and a
descriptor, and a person's editors have one for each window."""

UNREAD_OF_ACCOUNT: Final = 2 * CHILD_LINE
"""Bytes that wait for the readers of one account, the messages being written among
them: any one answer, and another beside it.  Past it the readers for whom most
waits are cut."""

UNREAD: Final = 4 * UNREAD_OF_ACCOUNT
"""The same of everybody, in the 3 GB of `MemoryMax=`: past it the account for which
most waits loses the reader for whom most waits (design D21)."""

STREAM_STALL: Final = 60.0
"""A reader that takes no byte for so long is cut (design D21)."""

STREAM_RETRY: Final = 5.0
"""A stream that ends with this daemon asks its client to come back after so
long; a restart takes less."""

STREAM_CROWDED: Final = 60.0
"""One that ends because its account has too many (`STREAMS_PER_ACCOUNT`) asks so
long: each that comes back closes another."""

BEARER: Final = 512
"""Characters of an access token; ours have under 60, and nobody's guess
deserves a look-up."""

RETRY_AFTER: Final = 5
"""Seconds that a 503 asks the client to wait."""

PREFLIGHT: Final = 10 * 60.0
"""A browser asks again after it what a page may send (`allowed-origins`).  One
small request in ten minutes is nothing; whether the page may read is decided
at each answer, so no change of the origins waits for it."""

# --- the store ----------------------------------------------------------------

STORE_BUSY: Final = 5.0
"""Wait so long for another process (the operator's tool) to end its write."""

STORE_QUEUED: Final = 0.5
"""A transaction that waited so long for its turn waits for a lock only as long
as is left of `STORE_BUSY`: else ten requests at once would wait for 50 s."""

# --- upkeep ---------------------------------------------------------------------

REAP: Final = 30.0
"""Between two looks for idle children (the original's sweep)."""

SESSION_IDLE: Final = 15 * 60.0
"""A child that nobody used for so long goes; its sessions stay (the original's)."""

ROTATE: Final = 60.0
"""Between two looks for credentials that end soon (the original's sweep)."""

EXPIRE: Final = 10 * 60.0
"""Between two looks for rows that nobody will need."""

EXPIRED_GRANTS: Final = 200
"""Grants that one look for the expired ends; the rest have time till the next."""

ENDED_GRANT: Final = 30 * 86400.0
"""What is left of an ended grant goes so long after its end; till then a replay
of its tokens is told from a stranger's guess, and an operator can look."""

FLUSH: Final = 60.0
"""Between two writes of when sessions and grants were last used: what a crash may
forget."""

ELSEWHERE: Final = 0.25
"""Between two looks whether another process has changed the store (design D14): so
long may a token work that the operator's tool has revoked.  All of them together
took 1.5 ms of a core in each second, measured on an idle daemon's store."""

UPKEEP: Final = 15 * 60.0
"""A job that takes so long hangs."""

CLOCK_STEP: Final = 60.0
"""The machine's clock was set if it moved so much more than time did between two
looks (`EXPIRE`); slewing moves it by 0.3 s in that time."""

CLOCK_TRUST: Final = 3600.0
"""After the clock was set, nothing is deleted for its age for so long: what
was set wrongly is mended by then."""

KEY_WATCH: Final = 2.0
"""Between two looks at the key file of a daemon that runs."""

KEY_POLL: Final = 0.25
"""Between two looks whether the daemon has taken a key in."""

KEY_PATIENCE: Final = 30.0
"""Of `fjmcp keys rotate` with a daemon that may be starting, or be in the
middle of something."""

KEY_SETTLE: Final = PAIR_KEEP + 60.0
"""After a daemon seals with another key, until nothing that it sealed with the
one before can still be on its way to the store."""

RESEAL_BATCH: Final = 100
"""Rows that one transaction of a rotation seals anew: some 10 ms, in which the
daemon's writes wait."""

RESEAL_PAUSE: Final = 0.01
"""Between two such transactions, for the daemon's own."""

RESEAL_PASSES: Final = 3
"""Over the whole store; a row that was on its way during one is met by the next."""

STORE_RETRIES: Final = 10
"""Of a transaction of the operator's tool that finds the store locked; each
waits for `STORE_BUSY` by itself."""

# --- the daemon's own bounds --------------------------------------------------

CALLERS: Final = 20_000
"""Bearer digests kept hot; some 500 bytes each."""

CONNECTIONS: Final = 8000
"""HTTP connections at a time; what comes past it is closed at once.  Half of
`LimitNOFILE=`, so that children, store and Forgejo have descriptors whatever
clients do.  Where the limit of descriptors is lower there may be fewer."""

CHILD_DESCRIPTORS: Final = 4
"""Of one child: three pipes, and one more on average while some start."""

OWN_DESCRIPTORS: Final = 200
"""Of the daemon itself: store, log, listeners, connections to Forgejo, and fetches of
documents (`DOCUMENT_FETCHES`)."""

CONNECTION_IDLE: Final = 120.0
"""An HTTP connection without a request; past the 60 s of usual proxies."""

LINGER: Final = 2.0
"""A connection whose request was refused unread is read on so long, so that
the refusal arrives before the reset."""

METRIC_LABELS: Final = 100
"""Values of one label of a metric; each is a time series that Prometheus keeps.
What we name ourselves is far below, so that past it something went wrong."""

PULSE: Final = 1.0
"""Between two looks at how late the reactor is."""

NOTIFY: Final = 1.0
"""To hand systemd a datagram; its socket is read at once unless it is in trouble."""

SHUTDOWN: Final = 85.0
"""The whole of a stop; systemd kills at 90 s."""
