"""Reads registries of energy attribute certificates and contracts from CSV; their worth is reckoned in `certificates.py`.

Opens no file; text in, certificates out, or one sentence with file, line and column. Source of truth: `certificates.py` for
the fields; EnergyTag for volumes in whole Wh.
"""

from wattledger_collector.certificates import Certificate, Kind, whole_wh
from wattledger_collector.csv_table import Row, TableError, read_table
from wattledger_collector.factors import Boundary, Gas

COLUMNS = ("certificate", "kind", "registry", "market", "from", "to", "volume_wh", "grams_per_kwh", "retired_for")
OPTIONAL_COLUMNS = ("serial_prefix", "serial_first", "serial_last", "retired_on", "offset", "evidence", "gas", "boundary")

# A year of granular certificates, one an hour, of a hundred plants.
ROWS_MAX = 1_000_000

# A thousand TWh: no more is generated for one beneficiary; beyond it, the unit is wrong.
VOLUME_WH_MAX = 10**15


def parse_certificates(text: str, where: str) -> list[Certificate]:
    """Read a registry file: CSV with the columns COLUMNS. Raises TableError at the first thing that is wrong.

    from and to are times with their offset, half-open; volume_wh may have a fraction, which is dropped; grams_per_kwh may be
    empty where a certificate conveys no rate, and is 0 for wind; serial_first and serial_last are empty for contracts.
    gas and boundary say what the rate counts; empty: the same as the grid factor of the load.
    """
    rows: list[Certificate] = []
    names: set[str] = set()
    for row in read_table(text, where, COLUMNS, ROWS_MAX, OPTIONAL_COLUMNS):
        certificate = _parse_row(row)
        if certificate.certificate in names:
            raise TableError(f"{row.place} has the certificate {certificate.certificate!r} again: give each its own name")
        names.add(certificate.certificate)
        rows.append(certificate)
    return rows


def _parse_row(row: Row) -> Certificate:
    first = row.whole("serial_first") if row.cells["serial_first"] else 0
    last = row.whole("serial_last") if row.cells["serial_last"] else first
    if last < first:
        raise TableError(f"{row.place} has serials from {first} to {last}: the last is not before the first")
    begin, end = row.instant("from"), row.instant("to")
    if end <= begin:
        raise TableError(f"{row.place} was generated from {row.cells['from']} to {row.cells['to']}: the end has to be later")
    volume_wh = whole_wh(row.decimal("volume_wh"))
    if not 0 < volume_wh <= VOLUME_WH_MAX:
        raise TableError(f"{row.place} has volume_wh {row.cells['volume_wh']}: write Wh from 1 to {VOLUME_WH_MAX}")
    return Certificate(
        certificate=row.text("certificate"),
        kind=row.choice("kind", Kind),
        registry=row.text("registry"),
        serial_prefix=row.cells["serial_prefix"],
        serial_first=first,
        serial_last=last,
        market=row.text("market"),
        from_seconds=begin,
        to_seconds=end,
        volume_wh=volume_wh,
        grams_per_kwh=row.decimal("grams_per_kwh") if row.cells["grams_per_kwh"] else None,
        retired_for=row.cells["retired_for"],
        retired_on=row.day("retired_on").isoformat() if row.cells["retired_on"] else "",
        offset=row.cells["offset"],
        evidence=row.cells["evidence"],
        gas=row.choice("gas", Gas) if row.cells["gas"] else "",
        boundary=row.choice("boundary", Boundary) if row.cells["boundary"] else "",
    )
