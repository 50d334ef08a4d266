"""The rows of metadata documents, in memory."""

from __future__ import annotations

from tests.store.documents_contract import DocumentsContract
from tests.store.test_grants import InMemory


class DocumentsTests(InMemory, DocumentsContract):
    """The contract, in memory."""
