"""
What a person consented to, and when that may be remembered.

A consent is kept as a digest over everything that it covers, so that whatever
differs in a later request is a question that was never answered.
"""

from __future__ import annotations

import hashlib
import json

from fjmcp.oauth import known, redirects
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.tokens import Digest


def may_be_kept(request: AuthorizationRequest) -> bool:
    """Whether a consent to this may stand for the person the next time."""
    # RFC 8252 §8.6: "unless the identity of the client can be proven, the request SHOULD be
    # processed as if no previous request had been approved.  Measures such as claimed "https"
    # scheme redirects MAY be accepted by authorization servers as identity proof."  On loopback
    # any program may listen, and any may claim a private scheme; a host that sends browsers on
    # leads there, too.
    uri = request.redirect_uri
    local = redirects.is_loopback(uri) or known.forwards(uri)
    return uri.startswith("https://") and not local and request.fingerprint != ""


def consent_digest(account_id: int, request: AuthorizationRequest) -> Digest:
    """What is kept of this account's consent to this request."""
    covered = [
        account_id,
        request.client_id,
        request.redirect_uri,
        request.scopes,
        request.resource,
        request.fingerprint,
    ]
    # JSON, so that no two lists make one text.
    return Digest(hashlib.sha256(json.dumps(covered).encode("ascii")).digest())
