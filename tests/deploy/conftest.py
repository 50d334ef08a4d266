"""The demo's servers behind each proxy."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fjmcp.demo.child import RealChild
from fjmcp.demo.processes import Process
from tests.deploy.proxies import PROXIES, Behind, Certificate, certificate

PATIENT_CHILD = Path(__file__).with_name("patient_child.py")


@pytest.fixture(scope="session")
def cert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certificate]:
    """A certificate, whose authority is trusted for the while."""
    made = certificate(tmp_path_factory.mktemp("certificate"))
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(made.authority)
    yield made
    if before is None:
        del os.environ["SSL_CERT_FILE"]
    else:
        os.environ["SSL_CERT_FILE"] = before


@pytest.fixture(scope="session")
def trust(cert: Certificate) -> ssl.SSLContext:
    """What a client without the SDK trusts."""
    return ssl.create_default_context(cafile=cert.authority)


@pytest.fixture(scope="session")
def patient_child(tmp_path_factory: pytest.TempPathFactory) -> RealChild:
    """A child that does as it is told by the names of tools."""
    program = tmp_path_factory.mktemp("child") / "patient-child"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{PATIENT_CHILD}"\n')
    program.chmod(0o755)
    return RealChild("patient", program, "the tests need it")


@pytest.fixture(params=sorted(PROXIES), scope="module")
def proxy(request: pytest.FixtureRequest) -> str:
    """The name of each proxy."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def behind(
    proxy: str,
    cert: Certificate,
    patient_child: RealChild,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Behind]:
    """The servers behind it."""
    for servers in running(proxy, cert, patient_child, tmp_path_factory.mktemp(proxy)):
        yield servers
        # In order it would wait for the calls that have no end.
        if servers.broker is not None:
            servers.broker.kill()


def running(proxy: str, cert: Certificate, child: RealChild, home: Path) -> Iterator[Behind]:
    """Start it all, and end it."""
    servers = Behind(child, home, options={"FJMCP_TRUSTED_PROXIES": "127.0.0.1"})
    front: Process | None = None
    try:
        front = PROXIES[proxy](servers, cert)
        servers.start_forge()
        servers.start_broker()
        yield servers
    finally:
        servers.stop()
        if front is not None:
            front.stop()
