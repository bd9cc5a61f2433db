"""An Apache Kafka that lets nobody do what no rule allows, with a login for everybody: SCRAM, or a certificate."""

import datetime as dt
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.brokers import launcher

HOST = "127.0.0.1"


class Authority:
    """Signs certificates, as a company's own would; a folder with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("signer-flow tests")
        ca = self._certificate(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self._write("ca.pem", ca)

    def issue(self, name: str) -> None:
        """Make ``NAME.pem``: key and certificate. It is good for a broker on loopback and for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        # As a DNS name too: some clients look for whatever they were told to connect to among those only.
        hosts = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST)), x509.DNSName(HOST)])
        made = self._certificate(_name(name), key, hosts)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._write(f"{name}.pem", private + made)

    def options(self, name: str) -> dict[str, str]:
        """librdkafka's options for whoever has that certificate."""
        own = str(self.folder / f"{name}.pem")
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.folder / "ca.pem"),
            "ssl.certificate.location": own,
            "ssl.key.location": own,
        }

    def _certificate(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical=False)
        builder = builder.not_valid_before(now - dt.timedelta(hours=1))
        builder = builder.not_valid_after(now + dt.timedelta(days=1))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _write(self, name: str, content: bytes) -> None:
        with os.fdopen(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(content)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Locked:
    """The running broker. ``users`` are who can log in by SCRAM; the first may do everything."""

    folder: Path
    port: int
    users: Mapping[str, str] = field(repr=False)
    by_certificate: tuple[str, ...]
    authority: Authority

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def tls(self) -> str:
        return f"{HOST}:{self.port + 1}"

    @property
    def sasl_tls(self) -> str:
        return f"{HOST}:{self.port + 2}"

    def options(self, user: str, password: str | None = None) -> dict[str, str]:
        """librdkafka's options to log in."""
        return {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": self.users[user] if password is None else password,
        }

    def options_with_tls(self, user: str) -> dict[str, str]:
        """The same on a connection that nobody else can read: SASL_SSL."""
        return {
            **self.options(user),
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.authority.folder / "ca.pem"),
        }

    def login(self, user: str) -> tuple[str, dict[str, str]]:
        """Address and options: by certificate for those who have one."""
        if user in self.by_certificate:
            return self.tls, self.authority.options(user)
        return self.bootstrap, self.options(user)

    def file(self, options: Mapping[str, str]) -> Path:
        """The same as a private file, as processes and commands want it."""
        path = self.folder / f"{secrets.token_hex(8)}.options"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write("".join(f"{name}={value}\n" for name, value in options.items()))
        return path


def start(folder: Path, users: tuple[str, ...], by_certificate: tuple[str, ...]) -> tuple[object, Locked]:
    """Start one. Returns the launcher's instance, to be stopped, and how to use it."""
    kafka = launcher()
    authority = Authority(folder)
    for name in ("broker", *by_certificate):
        authority.issue(name)
    logins = {name: secrets.token_hex(8) for name in users}
    instance = kafka.Instance(f"locked-{secrets.token_hex(4)}")
    _, port = instance.start(0, False, False, False, kafka.Lock(logins, folder))
    return instance, Locked(folder, port, logins, by_certificate, authority)
