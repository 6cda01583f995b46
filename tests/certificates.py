"""Certificates made for tests: an authority, and what it signs. Knows no server."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both; returns their paths."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return certificate, key


class Authority:
    """Signs certificates that are valid for some hours, as its own is."""

    def __init__(self, name: str = "test authority", *, hours: int = 1) -> None:
        self._hours = hours
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._key, self._name, [], is_authority=True).certificate

    def write(self, folder: Path) -> Path:
        """Write the authority's own certificate; returns its path."""
        path = folder / "ca.pem"
        path.write_bytes(self.certificate)
        return path

    def sign(
        self, *, dns: tuple[str, ...] = (), uris: tuple[str, ...] = (), ips: tuple[str, ...] = (), name: str = "test"
    ) -> Pair:
        """A certificate with these subject alternative names."""
        addresses = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        names = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, uris), *addresses]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(ec.generate_private_key(ec.SECP256R1()), subject, names, is_authority=False)

    def _sign(
        self, key: ec.EllipticCurvePrivateKey, subject: x509.Name, names: list[x509.GeneralName], *, is_authority: bool
    ) -> Pair:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=self._hours))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pair(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )
