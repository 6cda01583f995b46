"""What is read of a certificate is what its maker wrote into it, and what is no certificate is told so."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from tests.certificates import Authority

from wattledger_agent.certificate_dates import CertificateError, read_pem


def test_names_dates_and_signer_are_those_of_the_maker() -> None:
    """As another program reads them, all kinds of names included."""
    authority = Authority("the authority", hours=24)
    pem = authority.sign(dns=("a.example",), uris=("wattledger://host/a",), ips=("192.0.2.7", "2001:db8::1")).certificate
    made = x509.load_pem_x509_certificate(pem)

    (read,) = read_pem(pem.decode())
    (signer,) = read_pem(authority.certificate.decode())

    assert read.names == ("a.example", "wattledger://host/a", "192.0.2.7", "2001:db8::1")
    assert (read.since, read.until) == (made.not_valid_before_utc, made.not_valid_after_utc)
    assert read.issuer == signer.subject == signer.issuer
    assert read.subject != signer.subject
    assert signer.names == ()


def test_dates_beyond_2049_have_a_long_form() -> None:
    """An authority is often made for decades."""
    authority = Authority(hours=40 * 365 * 24)

    (read,) = read_pem(authority.certificate.decode())

    assert abs(read.until - datetime.now(UTC) - timedelta(days=40 * 365)) < timedelta(minutes=1)
    assert read.until.year > 2049


def test_a_file_may_hold_several_and_words_between() -> None:
    """As bundles of authorities do, each with its name above it."""
    first, second = Authority("first").certificate.decode(), Authority("second").certificate.decode()

    assert len(read_pem(f"# first\n{first}\n# second\n{second}")) == 2
    assert read_pem("no certificate at all") == []


@pytest.mark.parametrize("cut", [0, 1, 7, 60, 200, 400])
def test_a_certificate_that_was_cut_is_none(cut: int) -> None:
    """Wherever the copy ended: never a wrong date, and never a crash."""
    lines = Authority().certificate.decode().splitlines()
    body = "".join(lines[1:-1])[: cut - cut % 4]

    with pytest.raises(CertificateError, match="it is no certificate"):
        read_pem(f"{lines[0]}\n{body}\n{lines[-1]}\n")
