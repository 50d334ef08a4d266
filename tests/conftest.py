"""
What pytest needs to run trial's tests beside its own.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from unittest import TestCase as AnyTestCase

import pytest
from twisted.logger import LogPublisher, globalLogBeginner
from twisted.trial.unittest import SynchronousTestCase, TestCase

# Until somebody begins to log, Twisted keeps every event for him, and with it what logged it:
# the whole broker of each test, through which the collector then walks again and again.
globalLogBeginner.beginLoggingTo([LogPublisher()], discardBuffer=True, redirectStandardIO=False)


def _place(item: pytest.Item) -> int:
    """0: no reactor; 1: trial's own reactor run; 2: pytest-twisted, which keeps it running."""
    case = getattr(item, "cls", None)
    if case is None or not issubclass(case, AnyTestCase):
        return 2
    return 1 if issubclass(case, TestCase) else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Trial's cases first: one that runs the reactor fails once pytest-twisted
    has started it.
    """
    items.sort(key=_place)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the collector need not walk through it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """A case that is done gives up its world: it was collected, and stays."""
    case = getattr(item, "instance", None)
    yield
    if isinstance(case, SynchronousTestCase):
        vars(case).clear()


@pytest.fixture(scope="session", autouse=True)
def _somewhere_else(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run outside the checkout, as trial does, where `mktemp` may leave what it likes."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("trial"))
    yield
    os.chdir(before)


@pytest.fixture(scope="class", autouse=True)
def _collect() -> Iterator[None]:
    """
    Coroutines that a class left suspended end here, where their complaint has
    an owner, and not in some later class's test.
    """
    yield
    gc.collect()
