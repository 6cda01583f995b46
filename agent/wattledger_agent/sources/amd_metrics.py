"""The energy accumulator in an AMD GPU's table `gpu_metrics`: where it stands in each revision, and in which unit.

Reads no file. Source of truth: struct gpu_metrics_v1_* in drivers/gpu/drm/amd/include/kgd_pp_interface.h.
"""

import struct

# Bytes of the table that are needed, whatever its revision.
TABLE_BYTES = 128

# By content revision of format 1: where the 64-bit accumulator begins. Revision 0 has 32 bits, in a unit that differs.
OFFSETS = {1: 24, 2: 24, 3: 24, 4: 24, 5: 88, 6: 16, 7: 24, 8: 24}
FORMAT = 1

# The unit is 2^-16 J: 15625 / 1024 microjoules.
UNIT_NUMERATOR, UNIT_DENOMINATOR = 15_625, 1_024

NOT_FILLED = (0, 2**64 - 1)

HEADER = struct.Struct("<HBB")
ACCUMULATOR = struct.Struct("<Q")


def is_known(table: bytes) -> bool:
    """Whether the table is of a kind of which it is known where its accumulator is, if it has one."""
    return len(table) >= HEADER.size and HEADER.unpack_from(table)[1:] in {(FORMAT, revision) for revision in OFFSETS}


def energy_microjoules(table: bytes) -> int | None:
    """The energy since the driver was loaded, rounded down; None if the table is of another kind or does not hold it."""
    if len(table) < HEADER.size:
        return None
    size, format_revision, content_revision = HEADER.unpack_from(table)
    offset = OFFSETS.get(content_revision)
    if format_revision != FORMAT or offset is None or min(size, len(table)) < offset + ACCUMULATOR.size:
        return None
    (raw,) = ACCUMULATOR.unpack_from(table, offset)
    return None if raw in NOT_FILLED else raw * UNIT_NUMERATOR // UNIT_DENOMINATOR
