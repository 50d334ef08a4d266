"""
Reverse proxies as real processes, with the configuration that is shipped.

Only what differs from machine to machine is replaced in it: the host name, the
ports, the certificate, where logs go.
"""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fjmcp.demo.processes import Process, Servers, free_port

DEPLOY: Final = Path(__file__).parents[2] / "deploy"


@frozen
class Certificate:
    """A certificate for localhost, and the authority that signed it."""

    authority: Path
    chain: Path
    key: Path


def certificate(folder: Path) -> Certificate:
    """Make one that is good for a century."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests of fjmcp")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _builder(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _builder(name, ca_name, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    made = Certificate(folder / "authority.pem", folder / "chain.pem", folder / "key.pem")
    made.authority.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def _builder(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2126, 1, 1, tzinfo=datetime.UTC))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@define(eq=False)
class Behind(Servers):
    """The servers of the demo, of which the broker stands behind a proxy with TLS."""

    proxy_port: int = field(factory=free_port)

    @property
    def public_url(self) -> str:
        """Where the proxy answers."""
        return f"https://localhost:{self.proxy_port}"


Start = Callable[[Behind, Certificate], Process]


def nginx(servers: Behind, certificate: Certificate) -> Process:
    """Start nginx with deploy/nginx/fjmcp.conf."""
    home = servers.home / "nginx"
    home.mkdir(parents=True)
    text = replaced(
        DEPLOY / "nginx" / "fjmcp.conf",
        {
            "server 127.0.0.1:8080;": f"server 127.0.0.1:{servers.broker_port};",
            "    listen 443 ssl;\n": f"    listen 127.0.0.1:{servers.proxy_port} ssl;\n",
            "    listen [::]:443 ssl;\n": "",
            "    listen 80;\n": f"    listen 127.0.0.1:{free_port()};\n",
            "    listen [::]:80;\n": "",
            "server_name mcp.example.org;": "server_name localhost;",
            "https://mcp.example.org$request_uri": f"{servers.public_url}$request_uri",
            "/etc/ssl/mcp.example.org/fullchain.pem": str(certificate.chain),
            "/etc/ssl/mcp.example.org/privkey.pem": str(certificate.key),
            "/var/log/nginx/fjmcp.log": str(home / "access.log"),
        },
    )
    (home / "fjmcp.conf").write_text(text)
    # What Debian's /etc/nginx/nginx.conf says around it; one process, so that its
    # connections can be counted.
    kept = "".join(
        f"    {kind}_temp_path {home}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "nginx.conf").write_text(
        ("user root;\n" if os.getuid() == 0 else "")
        + f"daemon off;\nworker_processes 1;\npid {home}/pid;\nerror_log stderr;\n"
        + "events { worker_connections 256; }\n"
        + f"http {{\n{kept}    gzip on;\n    include {home}/fjmcp.conf;\n}}\n"
    )
    command = [program("nginx"), "-e", "stderr", "-p", str(home), "-c", str(home / "nginx.conf")]
    return _run("nginx", home, command, {})


def caddy(servers: Behind, certificate: Certificate) -> Process:
    """Start Caddy with deploy/caddy/Caddyfile."""
    home = servers.home / "caddy"
    home.mkdir(parents=True)
    text = replaced(
        DEPLOY / "caddy" / "Caddyfile",
        {
            "mcp.example.org {": f"{servers.public_url} {{\n\tbind 127.0.0.1\n"
            f"\ttls {certificate.chain} {certificate.key}",
            "reverse_proxy 127.0.0.1:8080": f"reverse_proxy 127.0.0.1:{servers.broker_port}",
            "/var/log/caddy/fjmcp.log": str(home / "access.log"),
        },
    )
    # Without an authority on the Internet and without ports 80 and 2019.
    (home / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    command = [program("caddy"), "run", "--config", str(home / "Caddyfile")]
    places = {name: str(home) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    return _run("caddy", home, command, places)


PROXIES: Final[dict[str, Start]] = {"nginx": nginx, "caddy": caddy}


def replaced(file: Path, words: dict[str, str]) -> str:
    """The text of a file with other words, each of which must be there."""
    text = file.read_text("utf-8")
    for old, new in words.items():
        assert old in text, f"{file}: {old!r} is not there"
        text = text.replace(old, new)
    return text


def program(name: str) -> str:
    """
    The path of a program; Debian keeps some where only root looks.

    :raises AssertionError: it is not there.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert found is not None, f"these tests need {name}: apt-get install {name}"
    return found


def _run(name: str, home: Path, command: list[str], more: dict[str, str]) -> Process:
    log = home / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(name, log, process)
