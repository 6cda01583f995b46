"""Reads from an X.509 certificate what an operator must know: whom it names, who signed it, and when it is valid.

Checks no signature: TLS does. Opens no file. Source of truth: RFC 5280, section 4.1, in the encoding of X.690 (DER).
"""

import base64
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_SEQUENCE, _OID, _OCTETS = 0x30, 0x06, 0x04
_UTC_TIME = 0x17
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_ALTERNATIVE_NAME = bytes.fromhex("551d11")  # 2.5.29.17
_MAIL, _DNS, _URI, _ADDRESS = 0x81, 0x82, 0x86, 0x87
_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"


class CertificateError(ValueError):
    """What should be a certificate is none; the text says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. issuer, subject: names as they are encoded, to be compared. names: its alternative names."""

    since: datetime
    until: datetime
    issuer: bytes
    subject: bytes
    names: tuple[str, ...]


def read_pem(text: str) -> list[Certificate]:
    """Return the certificates in a PEM text, the first first. Raises CertificateError if one is broken."""
    certificates = []
    for block in text.split(_BEGIN)[1:]:
        body, end, _ = block.partition(_END)
        try:
            certificates.append(read_der(base64.b64decode("".join(body.split()), validate=True) if end else b""))
        except (ValueError, IndexError, StopIteration) as error:
            raise CertificateError(f"it is no certificate: {error}") from error
    return certificates


def read_der(data: bytes) -> Certificate:
    """Read one certificate. Raises ValueError, IndexError or StopIteration if it is none."""
    _, outer = next(_values(data))
    _, signed = next(_values(outer))
    fields = [(tag, value) for tag, value in _values(signed) if tag != _VERSION]
    # Serial number, algorithm, issuer, validity, subject.
    _, _, (_, issuer), (_, validity), (_, subject) = fields[:5]
    since, until = (_time(tag, value) for tag, value in _values(validity))
    extensions = next((value for tag, value in fields if tag == _EXTENSIONS), b"")
    return Certificate(since, until, issuer, subject, tuple(_names(extensions)))


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and contents of each value, one after the other."""
    place = 0
    while place < len(data):
        tag, length = data[place], data[place + 1]
        place += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[place : place + count], "big")
            place += count
        if place + length > len(data):
            raise CertificateError(f"{length} bytes are announced and {len(data) - place} are there")
        yield tag, data[place : place + length]
        place += length


def _time(tag: int, value: bytes) -> datetime:
    """A time in UTC; the years of the short form are 1950 to 2049."""
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _names(extensions: bytes) -> Iterator[str]:
    for _, inner in _values(extensions):
        for _, extension in _values(inner):
            parts = list(_values(extension))
            if parts[0] != (_OID, _ALTERNATIVE_NAME) or parts[-1][0] != _OCTETS:
                continue
            for tag, value in _values(next(_values(parts[-1][1]))[1]):
                if tag in (_DNS, _URI, _MAIL):
                    yield value.decode("ascii", errors="replace")
                elif tag == _ADDRESS:
                    yield str(ipaddress.ip_address(value))
