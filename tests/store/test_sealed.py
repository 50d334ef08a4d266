"""Sealed values in memory."""

from __future__ import annotations

from tests.store.sealed_contract import SealedContract
from tests.store.test_grants import InMemory


class SealedTests(InMemory, SealedContract):
    """The contract, in memory."""
