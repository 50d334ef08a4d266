"""Tests for the OAuth refusals of `fjmcp.refusals`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import refusals
from fjmcp.oauth.authorization import plain_text
from fjmcp.refusals import OAuthRefusal

ALL = {name: value for name, value in vars(refusals).items() if isinstance(value, OAuthRefusal)}

CODES = {
    # RFC 6749 §4.1.2.1, §5.2
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    # RFC 7591 §3.2.2
    "invalid_redirect_uri",
    "invalid_client_metadata",
    # RFC 6750 §3.1, where RFC 7592 leads to
    "invalid_token",
    # RFC 8707 §2
    "invalid_target",
    # OpenID Connect Core §3.1.2.6
    "request_not_supported",
    "request_uri_not_supported",
    "interaction_required",
}


class EveryRefusal(SynchronousTestCase):
    """What holds for each of them."""

    def test_wire_code(self) -> None:
        """Each has an error code that a specification defines, but for an address that is none."""
        used = {refusal.error for refusal in ALL.values() if refusal.status != 404}
        self.assertEqual(used - CODES, set())

    def test_description(self) -> None:
        """Each sentence is whole, and goes over the wire as it stands (RFC 6749 §5.2)."""
        for name, refusal in ALL.items():
            self.assertEqual(plain_text(refusal.description), refusal.description, name)
            self.assertTrue(refusal.description.endswith("."), name)

    def test_reason(self) -> None:
        """Each reason names one refusal, so that the log tells them apart."""
        reasons = [refusal.reason for refusal in ALL.values()]
        self.assertEqual(sorted(set(reasons)), sorted(reasons))

    def test_status(self) -> None:
        """invalid_client is 401, a store that is down 503, a limit 429, all else 400 or 403
        (RFC 6749 §5.2)."""
        for name, refusal in ALL.items():
            if refusal.error == "invalid_client" and not name.startswith("AUTHORIZE_"):
                self.assertEqual(refusal.status, 401, name)
            if refusal.error == "invalid_grant":
                # Clients read any other status of a refresh as trouble, and never recover.
                self.assertEqual(refusal.status, 400, name)
            if refusal.status in (429, 503):
                self.assertIsNotNone(refusal.retry_after, name)
