"""Reads what an organisation declares from its files: the declaration and the registries of certificates that it names.

No policy and no sums. Sources of truth: `declared.py` and `certificate_table.py` for what may stand in them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from wattledger_collector.certificate_table import parse_certificates
from wattledger_collector.certificates import Certificate
from wattledger_collector.declared import Declared, instruments_of, parse_declared
from wattledger_collector.inventory import InventoryError
from wattledger_collector.market import Instruments


@dataclass(frozen=True, slots=True)
class Declaration:
    """A declaration with its certificates. files: the name of each file that was read, and the SHA-256 of its bytes."""

    declared: Declared
    certificates: tuple[Certificate, ...]
    files: tuple[tuple[str, str], ...]

    @property
    def instruments(self) -> Instruments:
        """What it declares for the market-based figure."""
        return instruments_of(self.declared, self.certificates)

    @property
    def sha256(self) -> str:
        """Digest of all files together: of their digests, a line each, in the order in which they were read."""
        return hashlib.sha256("".join(f"{digest}\n" for _, digest in self.files).encode()).hexdigest()


def load_declaration(path: Path) -> Declaration:
    """Read a declaration and the registry files that it names, relative to its folder.

    Raises InventoryError or TableError, one sentence with file, line or field.
    """
    text, digest = _read(path)
    declared = parse_declared(text, str(path))
    files = [(path.name, digest)]
    certificates: list[Certificate] = []
    first: dict[str, Path] = {}
    for name in () if declared.certificates is None else declared.certificates.files:
        registry = path.parent / name
        text, digest = _read(registry)
        files.append((name, digest))
        for certificate in parse_certificates(text, str(registry)):
            # Statements know what was used of a certificate by its name.
            other = first.setdefault(certificate.certificate, registry)
            if other is not registry:
                raise InventoryError(
                    f"{registry} has the certificate {certificate.certificate!r}, which {other} has too: "
                    "give each its own name"
                )
            certificates.append(certificate)
    return Declaration(declared, tuple(certificates), tuple(files))


def check_declaration(path: Path) -> None:
    """Raise InventoryError for a declaration that can't be used; of the registry files, only whether they can be read.

    A year of hours has a million certificates, which a command that needs none of them should not have to read.
    """
    text, _ = _read(path)
    declared = parse_declared(text, str(path))
    for name in () if declared.certificates is None else declared.certificates.files:
        try:
            (path.parent / name).open("rb").close()
        except OSError as error:
            raise InventoryError(
                f"{path}: cannot read certificates.files {name!r}: {error.strerror}; correct its path or rights"
            ) from error


def _read(path: Path) -> tuple[str, str]:
    try:
        content = path.read_bytes()
        return content.decode("utf-8"), hashlib.sha256(content).hexdigest()
    except (OSError, UnicodeDecodeError) as error:
        raise InventoryError(f"cannot read {path}: {error}; name a text file in UTF-8") from error
