"""A time-stamping authority that answers as it is told, truly or falsely.

Checks nothing. Its forms are those of RFC 3161 and RFC 5652; a test compares what OpenSSL makes of the same request.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wattledger_collector.der import OCTET_STRING, SEQUENCE, SET, encode, encode_integer

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)

SHA256_NAME = bytes.fromhex("0609608648016503040201")
SHA1_NAME = bytes.fromhex("06052b0e03021a")
SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
TST_INFO = bytes.fromhex("060b2a864886f70d0109100104")
CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("06092a864886f70d010904")
SIGNING_CERTIFICATE_V2 = bytes.fromhex("060b2a864886f70d010910022f")
POLICY = bytes.fromhex("06032a0304")
RSA_NAME = bytes.fromhex("06092a864886f70d010101")
NULL = b"\x05\x00"


def certify(
    name: str,
    key: Key,
    issuer: tuple[str, Key] | None = None,
    *,
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.TIME_STAMPING,),
    begin: datetime = AT - timedelta(days=1),
    end: datetime = AT + timedelta(days=1),
) -> x509.Certificate:
    """A certificate; without an issuer, that of a root."""
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, issuer[0] if issuer else name)]
    builder = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    if issuer is None or not usages:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    else:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=True)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


@dataclass
class Authority:
    """An authority below a root. What it answers is made of its fields, which a test may change."""

    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    root_key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.TIME_STAMPING,)
    at: bytes = b"20260203040506Z"
    status: int = 0
    digest_name: bytes = SHA256_NAME
    content_type: bytes = TST_INFO
    is_named: bool = True
    has_certificates: bool = True

    def __post_init__(self) -> None:
        self.root = certify("Root", self.root_key)
        self.certificate = certify("Clock", self.key, ("Root", self.root_key), usages=self.usages)
        self.named = self.certificate

    def answer(self, digest: bytes, nonce: int | None) -> bytes:
        """What it answers to a request of this digest."""
        imprint = encode(SEQUENCE, encode(SEQUENCE, SHA256_NAME + NULL) + encode(OCTET_STRING, digest))
        parts = encode_integer(1) + POLICY + imprint + encode_integer(77) + encode(0x18, self.at)
        info = encode(SEQUENCE, parts + (b"" if nonce is None else encode_integer(nonce)))
        content = encode(SEQUENCE, TST_INFO + encode(0xA0, encode(OCTET_STRING, info)))
        # The root first: authorities send certificates in any order.
        beside = b"".join(each.public_bytes(Encoding.DER) for each in (self.root, self.certificate))
        certificates = encode(0xA0, beside) if self.has_certificates else b""
        algorithms = encode(SET, encode(SEQUENCE, self.digest_name + NULL))
        signed = encode_integer(3) + algorithms + content + certificates + encode(SET, self._signer_info(info))
        token = encode(SEQUENCE, SIGNED_DATA + encode(0xA0, encode(SEQUENCE, signed)))
        return encode(SEQUENCE, encode(SEQUENCE, encode_integer(self.status)) + (token if self.status < 2 else b""))

    def _signer_info(self, info: bytes) -> bytes:
        named = encode(SEQUENCE, encode(OCTET_STRING, sha256(self.named.public_bytes(Encoding.DER)).digest()))
        attributes = [
            (CONTENT_TYPE, self.content_type),
            (MESSAGE_DIGEST, encode(OCTET_STRING, sha256(info).digest())),
            (SIGNING_CERTIFICATE_V2, encode(SEQUENCE, encode(SEQUENCE, named))),
        ]
        told = b"".join(
            encode(SEQUENCE, name + encode(SET, value)) for name, value in attributes[: 3 if self.is_named else 2]
        )
        serial = encode_integer(self.certificate.serial_number)
        parts = encode_integer(1) + encode(SEQUENCE, self.certificate.issuer.public_bytes() + serial)
        parts += encode(SEQUENCE, self.digest_name + NULL) + encode(0xA0, told) + encode(SEQUENCE, RSA_NAME + NULL)
        return encode(SEQUENCE, parts + encode(OCTET_STRING, self._sign(encode(SET, told))))

    def _sign(self, message: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))
