"""Time stamps of checkpoints: what an authority answers is checked to the last bit, kept, and told by whoever verifies."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.collector.authorities import AT, SHA1_NAME, SIGNED_DATA, Authority, certify
from tests.collector.closed_ledgers import BEGIN, DAY, MWH, Ledger, row

from wattledger_collector import der
from wattledger_collector.der import DerError
from wattledger_collector.statement_store import checkpoints, keep_time_stamp, time_stamps
from wattledger_collector.time_stamps import (
    ANSWER_BYTES_MAX,
    OtherImprintError,
    TimeStampError,
    check_authority,
    load_trusted,
    make_nonce,
    read_time_stamp,
    time_stamp_request,
)
from wattledger_collector.verify import main, verify

DIGEST = sha256(b"checkpoint").digest()


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as a file has it."""
    return certificate.public_bytes(Encoding.PEM)


def test_an_answer_says_who_stamped_when() -> None:
    """With the chain to a root, in any order of certificates, under ECDSA and RSA, with parts of seconds or without."""
    for authority in (Authority(), Authority(key=rsa.generate_private_key(65537, 2048)), Authority(at=b"20260203040506.5Z")):
        stamp = read_time_stamp(authority.answer(DIGEST, 9), DIGEST)
        assert (stamp.authority, stamp.serial, stamp.nonce) == ("CN=Clock", 77, 9)
        assert stamp.at.replace(microsecond=0) == AT
        assert check_authority(stamp, [authority.root]) == authority.root
        assert check_authority(stamp, [authority.certificate]) == authority.certificate
    assert stamp.at.microsecond == 500_000


def test_no_bit_of_what_is_signed_can_change() -> None:
    """Each flipped bit of an answer is refused, or changes nothing that is told."""
    authority = Authority()
    answer = authority.answer(DIGEST, 9)
    true = read_time_stamp(answer, DIGEST)
    # Every byte, and every place in a byte.
    for bit in range(0, 8 * len(answer), 7):
        spoiled = bytearray(answer)
        spoiled[bit // 8] ^= 1 << bit % 8
        try:
            stamp = read_time_stamp(bytes(spoiled), DIGEST)
            check_authority(stamp, [authority.root])
        except TimeStampError:
            continue
        assert (stamp.at, stamp.serial, stamp.nonce, stamp.signer) == (true.at, true.serial, true.nonce, true.signer), bit


@pytest.mark.parametrize(
    ("authority", "words"),
    [
        (Authority(status=2), "refuses the request"),
        (Authority(status=9), "answers with status 9"),
        (Authority(usages=(ExtendedKeyUsageOID.SERVER_AUTH,)), "not one for time stamps alone"),
        (Authority(usages=(ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.SERVER_AUTH)), "for time stamps alone"),
        (Authority(usages=()), "not one for time stamps alone"),
        (Authority(is_named=False), "does not name its certificate"),
        (Authority(has_certificates=False), "lacks the authority's certificate"),
        (Authority(digest_name=SHA1_NAME), "digest that is not taken any more"),
        (Authority(content_type=SIGNED_DATA), "does not say that it is one of a time stamp"),
        (Authority(at=b"2026-02-03 04:05"), "no time in UTC"),
    ],
    ids=["refused", "status", "usage", "usages", "no usage", "unnamed", "no certificate", "sha1", "type", "time"],
)
def test_what_is_wrong_with_an_answer_is_one_sentence(authority: Authority, words: str) -> None:
    """Each with what to do where something can be done."""
    with pytest.raises(TimeStampError, match=words):
        read_time_stamp(authority.answer(DIGEST, 9), DIGEST)


def test_an_answer_of_something_else_is_told_apart() -> None:
    """Another checkpoint's answer is whole, and is not this one's."""
    answer = Authority().answer(DIGEST, 9)
    with pytest.raises(OtherImprintError, match="of something else"):
        read_time_stamp(answer, sha256(b"other").digest())


def test_a_certificate_that_another_was_put_in_place_of_is_noticed() -> None:
    """The signature names its certificate by its digest."""
    authority = Authority()
    authority.named = authority.root
    with pytest.raises(TimeStampError, match="names another certificate"):
        read_time_stamp(authority.answer(DIGEST, 9), DIGEST)


def test_whom_nobody_named_is_not_trusted() -> None:
    """Another root of the same name, a certificate that had ended by then, and an issuer that may not issue."""
    authority = Authority()
    stamp = read_time_stamp(authority.answer(DIGEST, 9), DIGEST)
    with pytest.raises(TimeStampError, match="does not lead to one"):
        check_authority(stamp, [Authority().root])
    late = Authority(at=b"20360203040506Z")
    with pytest.raises(TimeStampError, match="did not hold on 2036-02-03"):
        check_authority(read_time_stamp(late.answer(DIGEST, 9), DIGEST), [late.root])
    middle_key = ec.generate_private_key(ec.SECP256R1())
    below = Authority()
    middle = certify("Middle", middle_key, ("Root", below.root_key))
    below.certificate = below.named = certify("Clock", below.key, ("Middle", middle_key))
    stamp = read_time_stamp(below.answer(DIGEST, 9), DIGEST)
    with pytest.raises(TimeStampError, match="does not lead to one"):
        check_authority(stamp, [middle])
    with pytest.raises(TimeStampError, match="no certificate in PEM"):
        load_trusted(b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x30", b"\x30\x80\x00\x00", b"\x30\x85\x01\x01\x01\x01\x01", b"\x30\x81\x01\x00", b"\x1f\x01\x00",
        b"\x30\x05\x00", b"\x30\x00\x00", bytes(ANSWER_BYTES_MAX + 1), b"\x30\x82\x20\x00" + b"\x05\x00" * 4096,
    ],
    ids=["empty", "no length", "no definite length", "huge", "long length", "long tag", "cut", "more", "large", "many"],
)  # fmt: skip
def test_noise_is_no_answer(data: bytes) -> None:
    """One sentence, never a crash."""
    with pytest.raises(TimeStampError):
        read_time_stamp(data, DIGEST)


def test_a_request_is_what_an_authority_reads() -> None:
    """Version, digest, nonce, and the wish for the certificate, as OpenSSL writes them."""
    nonce = make_nonce(b"secret", DIGEST)
    assert nonce == make_nonce(b"secret", DIGEST) != make_nonce(b"other", DIGEST)
    version, imprint, number, wish = der.sequence(der.parse(time_stamp_request(DIGEST, nonce)))
    assert (version.integer(), number.integer(), wish.raw) == (1, nonce, b"\x01\x01\xff")
    assert der.sequence(imprint)[1].content == DIGEST
    assert der.sequence(der.sequence(imprint)[0])[0].object_id() == "2.16.840.1.101.3.4.2.1"
    for edge in (0, 127, 128, 2**64 - 1):
        assert der.parse(der.encode_integer(edge)).integer() == edge
    with pytest.raises(ValueError, match="32 bytes"):
        time_stamp_request(b"short", 1)
    with pytest.raises(DerError):
        der.parse(b"\x06\x01\x80").object_id()


def openssl(folder: Path, *words: str) -> None:
    """Run OpenSSL's command in a folder."""
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the package openssl")
def test_openssl_and_this_program_understand_each_other(tmp_path: Path) -> None:
    """Its authority answers our request, with the root beside its certificate, and its check accepts our fake's answer."""
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.now(UTC)
    begin, end = now - timedelta(days=1), now + timedelta(days=1)
    authority = Authority(key=key)
    (tmp_path / "root.pem").write_bytes(pem(authority.root))
    answer = authority.answer(DIGEST, 9)
    (tmp_path / "fake.tsr").write_bytes(answer)
    instant = str(int(AT.timestamp()))
    checked = ("ts", "-verify", "-digest", DIGEST.hex(), "-in", "fake.tsr", "-CAfile", "root.pem", "-attime", instant)
    openssl(tmp_path, *checked)
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = certify("Root", root_key, begin=begin, end=end)
    clock = certify("Clock", key, ("Root", root_key), begin=begin, end=end)
    (tmp_path / "root.pem").write_bytes(pem(root))
    (tmp_path / "clock.pem").write_bytes(pem(clock))
    (tmp_path / "clock.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "serial").write_text("01")
    (tmp_path / "settings").write_text(
        "[t]\nserial = serial\ncrypto_device = builtin\nsigner_cert = clock.pem\ncerts = root.pem\nsigner_key = clock.key\n"
        "signer_digest = sha256\ndefault_policy = 1.2.3.4\ndigests = sha256\n"
    )
    (tmp_path / "request.tsq").write_bytes(time_stamp_request(DIGEST, 2**63 + 5))
    asked = ("ts", "-reply", "-config", "settings", "-section", "t", "-queryfile", "request.tsq", "-out", "answer.tsr")
    openssl(tmp_path, *asked)
    stamp = read_time_stamp((tmp_path / "answer.tsr").read_bytes(), DIGEST)
    assert (stamp.nonce, stamp.serial, stamp.signer) == (2**63 + 5, 2, clock)
    assert check_authority(stamp, [root]) == root


# -- In the ledger, and in bundles


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with a stated day, and a second one to state."""
    made = Ledger(tmp_path)
    made.book("a", [row(MWH), row(MWH, BEGIN + DAY)])
    yield made
    made.store.close()


def test_later_bundles_carry_the_stamps_of_what_has_the_statement(ledger: Ledger, tmp_path: Path) -> None:
    """Those of the statement's checkpoint and of later ones; who knows the root is told who stamped when."""
    authority = Authority()
    first = ledger.close(begin=BEGIN, end=BEGIN + DAY)
    second = ledger.close(begin=BEGIN + DAY, end=BEGIN + 2 * DAY)
    for signed in checkpoints(ledger.store):
        answer = authority.answer(sha256(signed.checkpoint.text.encode()).digest(), 1)
        assert keep_time_stamp(ledger.store, signed, answer)
        assert not keep_time_stamp(ledger.store, signed, answer)
    assert [len(time_stamps(ledger.store, each.statement.log_size)) for each in (first, second)] == [2, 1]
    bundle = ledger.bundle(first)
    assert sorted(each.name for each in bundle.glob("*.tsr")) == ["time-stamp-01.tsr", "time-stamp-02.tsr"]
    verdict = verify(bundle)
    assert verdict.problems == []
    assert any("time stamp 77 of CN=Clock, by what calls itself that" in fact for fact in verdict.facts)
    trusting = verify(bundle, authorities=[pem(authority.root)])
    assert trusting.problems == []
    assert any("was there on 2026-02-03T04:05:06+00:00" in fact and "trusted" in fact for fact in trusting.facts)
    root = tmp_path / "root.pem"
    root.write_bytes(pem(authority.root))
    zipped = ledger.bundle(second, "second.zip")
    assert main([str(zipped), "--tsa-certificate", str(root)]) == 0
    assert main([str(zipped), "--tsa-certificate", str(tmp_path / "nowhere")]) == 1


def test_a_stamp_that_was_asked_for_and_is_not_there_fails(ledger: Ledger) -> None:
    """None at all, or one of an authority that the reader did not name."""
    closed = ledger.close()
    missing = ["there is no time stamp of an authority that is named as trusted"]
    assert verify(ledger.bundle(closed, "none"), authorities=[pem(Authority().root)]).problems == missing
    (signed,) = checkpoints(ledger.store)
    keep_time_stamp(ledger.store, signed, Authority().answer(sha256(signed.checkpoint.text.encode()).digest(), 1))
    stranger = ledger.bundle(closed, "stranger")
    assert verify(stranger).problems == []
    told, *rest = verify(stranger, authorities=[pem(Authority().root)]).problems
    assert "time-stamp-01.tsr: the certificate of CN=Clock does not lead to one" in told
    assert rest == missing


def test_a_stamp_of_another_state_of_the_log_fails(ledger: Ledger) -> None:
    """It was there before the statement, or the file is of another checkpoint than log.json says."""
    authority = Authority()
    ledger.close(begin=BEGIN, end=BEGIN + DAY)
    second = ledger.close(begin=BEGIN + DAY, end=BEGIN + 2 * DAY)
    early, late = checkpoints(ledger.store)
    keep_time_stamp(ledger.store, late, authority.answer(sha256(early.checkpoint.text.encode()).digest(), 1))
    (problem,) = verify(ledger.bundle(second)).problems
    assert problem == "time-stamp-01.tsr: the time stamp is of something else than this checkpoint"
