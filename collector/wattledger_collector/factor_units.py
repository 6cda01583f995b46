"""Units in which factors are published, and their exact conversion to g/kWh.

No files, and no rounding: a product that does not fit is refused. Source of truth: the international pound, 0.45359237 kg
exactly; what is plausible follows EPA's eGRID, whose summary tables give CH4 and N2O in lb/GWh and all else in lb/MWh.
"""

from collections.abc import Mapping
from decimal import Context, Decimal, Inexact

# Of a kilogram; the definition of 1959.
KILOGRAMS_PER_POUND = Decimal("0.45359237")

# What a number in the unit is multiplied by to be in g/kWh.
GRAMS_PER_KWH: Mapping[str, Decimal] = {
    "g/kWh": Decimal(1),
    "kg/MWh": Decimal(1),
    "kg/kWh": Decimal(1000),
    "t/MWh": Decimal(1000),
    "lb/MWh": KILOGRAMS_PER_POUND,
    "lb/GWh": KILOGRAMS_PER_POUND / 1000,
}

# Trace gases, for which lb/GWh is in use.
TRACE_GASES = ("CH4", "N2O")

# The dirtiest region of eGRID has 0.2 lb/MWh of CH4. More is lb/GWh with the wrong name, off by 1000.
TRACE_GRAMS_PER_KWH_MAX = Decimal(1)

# Sixty digits hold any product of a published figure.
_EXACT = Context(prec=60, traps=[Inexact])


class UnitError(ValueError):
    """A unit or a value in it can't be right; the text is the end of a sentence that names the place."""


def grams_per_kwh(value: Decimal, unit: str, gas: str) -> Decimal:
    """A published value in g/kWh, exact. gas: `CO2`, `CO2e`, `CH4` or `N2O`. Raises UnitError."""
    if unit not in GRAMS_PER_KWH:
        raise UnitError(f"has unit {unit!r}: {_remedy(unit)}")
    if unit == "lb/GWh" and gas not in TRACE_GASES:
        raise UnitError(f"has unit 'lb/GWh' for {gas}: only CH4 and N2O are published so, write lb/MWh if that is meant")
    try:
        grams = _EXACT.multiply(value, GRAMS_PER_KWH[unit])
    except Inexact:
        raise UnitError(f"has value {value} with more digits than can be kept: write at most 50 of them") from None
    if gas in TRACE_GASES and grams > TRACE_GRAMS_PER_KWH_MAX:
        raise UnitError(
            f"has {value} {unit} of {gas}, a thousand times what grids emit: is it in "
            f"{'lb/GWh' if unit.startswith('lb') else 'g/MWh'}?"
        )
    return grams


def _remedy(unit: str) -> str:
    """Why a unit is refused; letters' cases are not mended, since Mt and mt differ by a million."""
    mass, _, energy = unit.partition("/")
    if mass in ("Mt", "MT", "mt"):
        meant = {"Mt": "Mt is a million tonnes", "MT": "MT may be a tonne or a million", "mt": "mt is no unit of mass"}
        return f"{meant[mass]}, and a tonne is t: write t/{energy or 'MWh'} if that is meant"
    near = [known for known in GRAMS_PER_KWH if known.casefold() == unit.casefold()]
    if near:
        return f"write {near[0]}, with small and capital letters as they are there"
    return f"write {', '.join(list(GRAMS_PER_KWH)[:-1])}, or lb/GWh for CH4 and N2O"
