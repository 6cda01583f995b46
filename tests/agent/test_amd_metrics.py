"""The accumulator in each revision of the driver's table, and what is no table of ours."""

import struct

import pytest

from wattledger_agent.sources.amd_metrics import energy_microjoules


def table(revision: int, before: int, raw: int = 65_536, *, kind: int = 1, size: int | None = None) -> bytes:
    """A table with an accumulator after so many bytes, and as many behind it."""
    data = bytearray(before + 16)
    struct.pack_into("<HBB", data, 0, len(data) if size is None else size, kind, revision)
    struct.pack_into("<Q", data, before, raw)
    return bytes(data)


# Bytes before the accumulator, added up from the fields of each struct in kgd_pp_interface.h, padding included.
BEFORE = {
    1: 4 + 6 * 2 + 3 * 2 + 2,  # Six temperatures, three activities, power.
    2: 4 + 6 * 2 + 3 * 2 + 2,
    3: 4 + 6 * 2 + 3 * 2 + 2,
    4: 4 + 3 * 2 + 2 + 2 * 2 + 4 * 2,  # Three temperatures, power, two activities, four of VCN.
    5: 4 + 3 * 2 + 2 + 2 * 2 + 4 * 2 + 32 * 2,  # And 32 of JPEG.
    6: 4 + 3 * 2 + 2 + 2 * 2,  # Without those arrays.
    7: 4 + 3 * 2 + 2 + 2 * 2 + 8,  # With the memory's bandwidth before it.
    8: 4 + 3 * 2 + 2 + 2 * 2 + 8,
}


@pytest.mark.parametrize("revision", BEFORE)
def test_the_accumulator_is_found_in_each_revision(revision: int) -> None:
    """2^16 steps are one joule."""
    assert energy_microjoules(table(revision, BEFORE[revision])) == 1_000_000


def test_half_steps_are_rounded_down_once() -> None:
    """The total is rounded, not each step: 3 steps are 45.78 microjoules."""
    assert [energy_microjoules(table(7, 24, steps)) for steps in (1, 2, 3)] == [15, 30, 45]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        table(0, 24),  # 32 bits, in a unit that differs.
        table(9, 24),  # Not known.
        table(1, 24, kind=2),  # An APU's.
        table(7, 24, 0),  # Not filled.
        table(7, 24, 2**64 - 1),  # Not filled.
        table(7, 24, size=24),  # Ends before it.
        table(7, 24)[:28],  # Cut off.
    ],
    ids=["empty", "cut header", "revision 0", "revision 9", "format 2", "zero", "all ones", "short", "cut off"],
)
def test_what_does_not_hold_it_gives_none(data: bytes) -> None:
    """An unknown is not zero."""
    assert energy_microjoules(data) is None
