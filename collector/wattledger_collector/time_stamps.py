"""Time stamps of checkpoints: requests to an authority, and the check of its answers.

Asks nobody and trusts nobody by itself; bytes in, facts out. Source of truth: RFC 3161 for requests and answers, RFC 5652
section 5 for the signature in them, RFC 5035 for the certificate that the signature names. What is signed is the text of a
checkpoint; its SHA-256 is all that an authority sees.
"""

import hmac
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from wattledger_collector import der
from wattledger_collector.der import DerError, Node

# The largest answers, with a chain of long keys, have some 10 kB.
ANSWER_BYTES_MAX: Final = 1 << 17
NONCE_BYTES: Final = 8
# A chain from the authority to a root; longer ones lead in circles.
CHAIN_MAX: Final = 8

_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_HASHES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    _SHA256: hashes.SHA256,
    "2.16.840.1.101.3.4.2.2": hashes.SHA384,
    "2.16.840.1.101.3.4.2.3": hashes.SHA512,
}
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_TST_INFO: Final = "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE: Final = "1.2.840.113549.1.9.16.2.12"
_SIGNING_CERTIFICATE_V2: Final = "1.2.840.113549.1.9.16.2.47"
_RSA_PSS: Final = "1.2.840.113549.1.1.10"
_TIME_STAMPING: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.8")

# What a certificate that was changed, or is of a kind that nobody reads, ends in.
_UNREADABLE: Final = (
    ValueError, TypeError, LookupError, OverflowError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType, x509.ExtensionNotFound, x509.AttributeNotFound,
)  # fmt: skip

_STATUS: Final = {
    2: "refuses the request", 3: "has not answered yet", 4: "is about to be revoked", 5: "is revoked",
}  # fmt: skip


class TimeStampError(ValueError):
    """A time stamp is not what it should be; the text says which part."""


class OtherImprintError(TimeStampError):
    """A time stamp is of something else."""


@dataclass(frozen=True, slots=True)
class TimeStamp:
    """An answer whose signature is that of the certificate in it.

    at: in UTC. authority: the name that its certificate gives it. others: certificates beside that one.
    """

    at: datetime
    serial: int
    nonce: int | None
    authority: str
    signer: x509.Certificate
    others: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class _Info:
    """What was signed. imprint: name of the digest, and the digest."""

    imprint: tuple[str, bytes]
    at: datetime
    serial: int
    nonce: int | None


def make_nonce(secret: bytes, digest: bytes) -> int:
    """The number that an answer has to repeat; nobody else can foresee it, and it need not be kept."""
    return int.from_bytes(hmac.digest(secret, b"time stamp " + digest, "sha256")[:NONCE_BYTES], "big")


def time_stamp_request(digest: bytes, nonce: int) -> bytes:
    """A request (DER) for what has this SHA-256: version 1, the nonce, and the certificate with the answer."""
    if len(digest) != 32:
        raise ValueError(f"a SHA-256 has 32 bytes, not {len(digest)}")
    algorithm = der.encode(der.SEQUENCE, _object_id(_SHA256) + b"\x05\x00")
    imprint = der.encode(der.SEQUENCE, algorithm + der.encode(der.OCTET_STRING, digest))
    parts = der.encode_integer(1) + imprint + der.encode_integer(nonce) + b"\x01\x01\xff"
    return der.encode(der.SEQUENCE, parts)


def read_time_stamp(answer: bytes, digest: bytes) -> TimeStamp:
    """An answer of what has this SHA-256, checked up to who the authority is. Raises TimeStampError."""
    if len(answer) > ANSWER_BYTES_MAX:
        raise TimeStampError(f"the answer has {len(answer)} bytes, more than any time stamp")
    try:
        with _silent():
            return _read(answer, digest)
    except DerError as error:
        raise TimeStampError(f"this is no answer of a time-stamping authority: {error}") from error
    except TimeStampError:
        raise
    except _UNREADABLE as error:
        raise TimeStampError(f"the time stamp can't be read: {error}") from error


def check_authority(stamp: TimeStamp, trusted: Sequence[x509.Certificate]) -> x509.Certificate:
    """The trusted certificate that the authority's is, or leads to; all of them hold at the time of the stamp.

    Raises TimeStampError.
    """
    certificate = stamp.signer
    for _ in range(CHAIN_MAX):
        _check_valid(certificate, stamp.at)
        if certificate in trusted:
            return certificate
        with _silent():
            issuers = [each for each in (*trusted, *stamp.others) if _is_issued(certificate, each)]
        if not issuers or issuers[0] == certificate:
            break
        certificate = issuers[0]
    raise TimeStampError(f"the certificate of {stamp.authority} does not lead to one that is named as trusted")


def load_trusted(pem: bytes) -> list[x509.Certificate]:
    """Certificates from a file. Raises TimeStampError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TimeStampError(f"this is no certificate in PEM ({error}): give the authority's, or its root's") from error


@contextmanager
def _silent() -> Iterator[None]:
    """What a library thinks of a stranger's certificate is no word to the reader: it is refused here, or taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


def _read(answer: bytes, digest: bytes) -> TimeStamp:
    status, *token = der.sequence(der.parse(answer))
    code = der.sequence(status)[0].integer()
    if code not in (0, 1) or not token:
        raise TimeStampError(f"the authority {_STATUS.get(code, f'answers with status {code}')}: ask anew, or another one")
    kind, content = der.sequence(token[0])
    if kind.object_id() != _SIGNED_DATA:
        raise TimeStampError("the answer has no signed data")
    (signed,) = der.sequence(content, der.CONTEXT_0)
    _, _, encapsulated, *rest = der.sequence(signed)
    info_kind, wrapped = der.sequence(encapsulated)
    if info_kind.object_id() != _TST_INFO:
        raise TimeStampError("what was signed is no time stamp")
    (octets,) = der.sequence(wrapped, der.CONTEXT_0)
    info = _read_info(octets.content)
    if info.imprint != (_SHA256, digest):
        raise OtherImprintError("the time stamp is of something else than this checkpoint")
    certificates = [
        x509.load_der_x509_certificate(each.raw)
        for node in rest
        if node.tag == der.CONTEXT_0
        for each in node.children()
        if each.tag == der.SEQUENCE
    ]
    signer_infos = [each for node in rest if node.tag == der.SET for each in node.children()]
    if len(signer_infos) != 1:
        raise TimeStampError(f"the time stamp has {len(signer_infos)} signatures, and not one")
    signer = _check_signature(signer_infos[0], octets.content, certificates)
    others = tuple(each for each in certificates if each != signer)
    return TimeStamp(info.at, info.serial, info.nonce, signer.subject.rfc4514_string(), signer, others)


def _read_info(content: bytes) -> _Info:
    _, _, imprint, serial, at, *rest = der.sequence(der.parse(content))
    algorithm, hashed = der.sequence(imprint)
    nonces = [node.integer() for node in rest if node.tag == der.INTEGER]
    name = der.sequence(algorithm)[0].object_id()
    return _Info((name, hashed.content), at.time(), serial.integer(), nonces[0] if nonces else None)


def _check_signature(signer_info: Node, content: bytes, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    """The certificate that signed the content. Raises TimeStampError."""
    _, identity, digest_algorithm, attributes, algorithm, signature, *_ = der.sequence(signer_info)
    digest_name = der.sequence(digest_algorithm)[0].object_id()
    if digest_name not in _HASHES:
        raise TimeStampError(f"the time stamp is signed with a digest that is not taken any more ({digest_name})")
    signer = _signer(identity, certificates)
    found: dict[str, Node] = {}
    for attribute in der.sequence(attributes, der.CONTEXT_0):
        name, values = der.sequence(attribute)
        (found[name.object_id()],) = der.sequence(values, der.SET)
    if {_CONTENT_TYPE, _MESSAGE_DIGEST} - set(found) or found[_CONTENT_TYPE].object_id() != _TST_INFO:
        raise TimeStampError("the signature does not say that it is one of a time stamp")
    digest = hashes.Hash(_HASHES[digest_name]())
    digest.update(content)
    if found[_MESSAGE_DIGEST].content != digest.finalize():
        raise TimeStampError("the time stamp's signature is of another content: it was changed")
    _check_named(found, signer)
    # Signed under the tag of a SET, and kept under one of its own.
    message = der.encode(der.SET, attributes.content)
    _check_bytes(signer, algorithm, _HASHES[digest_name](), signature.content, message)
    return signer


def _check_bytes(
    signer: x509.Certificate, algorithm: Node, digest: hashes.HashAlgorithm, signature: bytes, message: bytes
) -> None:
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey) and der.sequence(algorithm)[0].object_id() == _RSA_PSS:
            scheme = padding.PSS(padding.MGF1(digest), padding.PSS.AUTO)
            key.verify(signature, message, scheme, digest)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(digest))
        else:
            raise TimeStampError(f"the authority's key is a {type(key).__name__}: take one with RSA or ECDSA")
    except InvalidSignature as error:
        raise TimeStampError("the time stamp's signature is false: it was changed") from error


def _signer(identity: Node, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    """The certificate that a signature names, by issuer and number or by the identifier of its key."""
    for certificate in certificates:
        if identity.tag == der.SEQUENCE:
            issuer, serial = identity.children()
            if (certificate.issuer.public_bytes(), certificate.serial_number) == (issuer.raw, serial.integer()):
                return certificate
        elif identity.tag == 0x80:
            try:
                known = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
            except x509.ExtensionNotFound:
                continue
            if known == identity.content:
                return certificate
    raise TimeStampError("the answer lacks the authority's certificate: ask anew, with a request that wants it")


def _check_named(attributes: dict[str, Node], signer: x509.Certificate) -> None:
    """Whether the certificate is for time stamps, and named by the signature, so that no other can take its place."""
    try:
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        usage = None
    if usage is None or not usage.critical or list(usage.value) != [_TIME_STAMPING]:
        raise TimeStampError("the certificate that signed is not one for time stamps alone")
    der_bytes = signer.public_bytes(Encoding.DER)
    if _SIGNING_CERTIFICATE_V2 in attributes:
        named = der.sequence(der.sequence(der.sequence(attributes[_SIGNING_CERTIFICATE_V2])[0])[0])
        algorithm = _SHA256 if named[0].tag == der.OCTET_STRING else der.sequence(named[0])[0].object_id()
        if algorithm not in _HASHES:
            raise TimeStampError(f"the signature names its certificate by a digest that is not taken any more ({algorithm})")
        digest = hashes.Hash(_HASHES[algorithm]())
        digest.update(der_bytes)
        expected, told = digest.finalize(), named[0 if named[0].tag == der.OCTET_STRING else 1].content
    elif _SIGNING_CERTIFICATE in attributes:
        told = der.sequence(der.sequence(der.sequence(attributes[_SIGNING_CERTIFICATE])[0])[0])[0].content
        expected = sha1(der_bytes, usedforsecurity=False).digest()
    else:
        raise TimeStampError("the signature does not name its certificate")
    if told != expected:
        raise TimeStampError("the signature names another certificate than the one beside it")


def _check_valid(certificate: x509.Certificate, at: datetime) -> None:
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise TimeStampError(
            f"the certificate of {certificate.subject.rfc4514_string()} did not hold on {at.isoformat()}, when it stamped"
        )


def _is_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether one certificate is signed with another that may sign certificates."""
    try:
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def _object_id(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    content = b""
    for number in (40 * first + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.insert(0, number & 0x7F | 0x80)
        content += bytes(digits)
    return der.encode(der.OBJECT_ID, content)
