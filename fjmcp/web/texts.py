"""
Every sentence of every page, in English.

A word in braces stands for something that the page knows, which is shown as an
element of its own, escaped.  What a refusal says is in `fjmcp.refusals`.
"""

from __future__ import annotations

from typing import Final

from fjmcp import limits

# --- our consent page ---------------------------------------------------------------

CONSENT_TITLE: Final = "Allow access to Forgejo?"
CONSENT_HEADING: Final = "Allow {client} to work in Forgejo as you?"
CONSENT_ASKS: Final = (
    "An application that calls itself {client} asks for access to your account at {forge}."
)
CONSENT_REMEMBERED: Final = (
    "If you allow this, you are not asked again in this browser for"
    f" {limits.CONSENT_KEPT / 86400:.0f} days."
)
CONSENT_ALLOW: Final = "Allow and sign in at Forgejo"
CONSENT_WITHDRAW: Final = (
    "You can disconnect this application in the application itself. In Forgejo, under Settings,"
    " Applications, you stop all that are connected through this server, until you sign in again."
)
REFUSE: Final = "Refuse"
NAMELESS: Final = "an application without a name"

# --- who asks, and for what -----------------------------------------------------------

ASKER_BACK: Final = "You are sent back to:"
ASKER_ADDRESS: Final = "The full address: {uri}"
ASKER_DOCUMENT: Final = "The application describes itself at {document}."
ASKER_KNOWN: Final = "This address belongs to {owner}, by {maker}."
ASKER_FORWARDING: Final = (
    "This address is that of {owner}, by {maker}. It sends you on to a program on your own"
    " computer, and any program there could be asking."
    " Go on only if you have just begun this yourself."
)
ASKER_BESIDE: Final = (
    "This address is on the host of {owner}, by {maker}, but {owner} is not known to use it."
    " Somebody else may have put something there."
    " Go on only if it is that of the application which you came from."
)
ASKER_STRANGE: Final = (
    "This server does not know who this address belongs to."
    " Go on only if it is that of the application which you came from."
)
ASKER_POSED: Final = (
    "The application calls itself after {posed}, but you would not be sent back to an address"
    " that {posed} is known to use."
    " Somebody may be trying to deceive you. If you are not sure, refuse."
)
ASKER_LOOPBACK: Final = (
    "This address is on your own computer. Any program that runs there could be asking."
    " Go on only if you have just begun this yourself."
)
ASKER_PRIVATE: Final = (
    "This address opens a program on your own computer, and any program there can claim it."
    " Go on only if you have just begun this yourself."
)
ASKER_RIGHTS: Final = "It will be able to"
ASKER_READ: Final = (
    "read what you can read: repositories, issues, pull requests, private ones included"
)
ASKER_CHANGE: Final = "change what you can change: files, issues, pull requests, comments, releases"
ASKER_TOGETHER: Final = (
    "Reading and changing cannot be granted apart on this server."
    " If you do not know the application or the address above, refuse."
)

# --- another person came back than before -----------------------------------------------

ANOTHER_TITLE: Final = "Another account than before"
ANOTHER_HEADING: Final = "Go on as {came}?"
ANOTHER_KNOWN: Final = "This browser was known as {known}; at Forgejo you are signed in as {came}."
ANOTHER_ASKS: Final = (
    "An application that calls itself {client} would get access to the account {came} at {forge}."
)
ANOTHER_REMEMBERED: Final = (
    "If you go on, you are not asked again in this browser for"
    f" {limits.CONSENT_KEPT / 86400:.0f} days."
)
ANOTHER_GO_ON: Final = "Go on as {came}"
ANOTHER_CHANGE: Final = (
    "To use another account, refuse, sign out at {forge}, and connect once more from the"
    " application. If you came here by a link that somebody gave you, refuse."
)

# --- on the way --------------------------------------------------------------------------

ONWARD_TITLE: Final = "One moment"
ONWARD_WHERE: Final = "You are being sent on to {host}."
ONWARD_LINK: Final = "Go on"

# --- something is wrong --------------------------------------------------------------------

WRONG_TITLE: Final = "This did not work"
WRONG_WHOSE: Final = "You are signed in at Forgejo as {login}."
WRONG_CODE: Final = "Error: {error}"
WRONG_BACK: Final = "Back to the application"
WRONG_WHERE: Final = "It is at {host}."
WRONG_UNSEEN: Final = (
    "This server does not know where that address leads, so it does not send you there by itself."
    " Go there only if it is that of the application which you came from."
)

# --- the front page --------------------------------------------------------------------------

FRONT_TITLE: Final = "Forgejo for AI assistants"
FRONT_WHAT: Final = (
    "This server lets an AI assistant work in Forgejo as you, with your rights, for as long as"
    " you allow it."
)
FRONT_PASTE: Final = (
    "Paste this address into your assistant where it adds a connector or MCP server:"
)
FRONT_NOTE: Final = (
    "It is made for programs: opened in a browser, it only asks for an access token."
    " Your assistant sends you to Forgejo to sign in."
)
