"""Shows the three books, as a table for people and as JSON for programs.

Reckons nothing but the rounding, half up and on display alone. Source of truth: `books.py`.
"""

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattledger_collector.books import Account, Books, Growth
from wattledger_collector.rounding import rounded

# The smallest step in which such figures are published: ten kilograms.
TONNE_DIGITS = 2


def show_books(books: Books, accounts: Sequence[Account], out: TextIO) -> None:
    """Write one table a year."""
    console = Console(file=out, highlight=False, width=None if out.isatty() else 100)
    console.print(f"{books.organisation}. {books.source}", soft_wrap=True, markup=False)
    for account in accounts:
        console.print()
        console.print(_table(account))
        for line in _sentences(books, account):
            console.print(line, soft_wrap=True, markup=False)


def write_books(books: Books, accounts: Sequence[Account], out: TextIO) -> None:
    """Write one JSON object; tonnes are text with two digits, shares and growths with six."""
    tree = {"organisation": books.organisation, "source": books.source, "years": [_tree(books, each) for each in accounts]}
    json.dump(tree, out, indent=2, ensure_ascii=False)
    out.write("\n")


def _table(account: Account) -> Table:
    table = Table(title=f"{account.year.year}", title_justify="left", title_style="bold")
    table.add_column("book")
    table.add_column("entry")
    table.add_column("t CO2e", justify="right")
    table.add_row("inventory", "scopes 1 and 2, location based", _tonnes(account.gross_tonnes))
    for substitution in account.year.substitution:
        table.add_row("substitution", escape(substitution.name), f"-{_tonnes(Fraction(substitution.tonnes))}")
    table.add_row("inventory", "scopes 1 and 2, market based", _tonnes(account.remaining_tonnes))
    for offset in account.year.offset:
        name = " ".join(filter(None, (offset.registry, offset.project, "" if offset.retired else "(not retired)")))
        table.add_row("compensation", escape(name), _tonnes(Fraction(offset.tonnes)))
    table.add_row(
        "compensation", "left over" if account.net_tonnes >= 0 else "more than needed", _tonnes(account.net_tonnes)
    )
    for reduction in account.year.reduction:
        table.add_row("reductions", escape(f"{reduction.name} (scope {reduction.scope})"), _tonnes(reduction.tonnes))
    table.add_row("reductions", "all, beside the inventory", _tonnes(account.reduced_tonnes))
    return table


def _sentences(books: Books, account: Account) -> list[str]:
    lines = []
    if account.is_neutral:
        lines.append("Neutral: retired credits cover what remains; the gross figure stays as it is.")
    else:
        lines.append(f"Not neutral: {_tonnes(account.net_tonnes)} t short.")
    for name, scope, share in account.shares:
        if share != 1:
            lines.append(f"{name}: {_percent(share)} of the reductions in scope {scope}.")
    for entry in account.year.reduction:
        if (implied := entry.implied_tonnes_per_megawatt_hour) is not None:
            energy = f"{_tonnes(entry.tonnes)} t over {entry.saved_megawatt_hours} MWh"
            lines.append(f"{entry.name}: {energy} are {rounded(implied, 6)} t/MWh.")
    lines += [_growth(each) for each in account.growths]
    for equivalence in books.equivalence:
        units = equivalence.floored(account.reduced_tonnes)
        lines.append(
            f"All reductions are more than {units:,} {equivalence.unit} "
            f"({equivalence.kilometres:,} km x {equivalence.kilograms_per_kilometre} kg/km)."
        )
    return lines


def _growth(growth: Growth) -> str:
    sign = "up" if growth.ratio >= 0 else "down"
    base = f"{_tonnes(growth.base_tonnes)} t{', as rounded by the source' if growth.is_published_base else ''}"
    return f"{growth.name}: {sign} {_percent(abs(growth.ratio))} on {base}."


def _tree(books: Books, account: Account) -> dict[str, Any]:
    return {
        "year": account.year.year,
        "gross_tonnes": _tonnes(account.gross_tonnes),
        "substituted_tonnes": _tonnes(account.substituted_tonnes),
        "remaining_tonnes": _tonnes(account.remaining_tonnes),
        "compensated_tonnes": _tonnes(account.compensated_tonnes),
        "net_tonnes": _tonnes(account.net_tonnes),
        "neutral": account.is_neutral,
        "reduced_tonnes": _tonnes(account.reduced_tonnes),
        "shares": [{"reduction": name, "scope": scope, "ratio": rounded(share, 6)} for name, scope, share in account.shares],
        "implied_factors": [
            {"reduction": entry.name, "tonnes_per_megawatt_hour": rounded(implied, 6)}
            for entry in account.year.reduction
            if (implied := entry.implied_tonnes_per_megawatt_hour) is not None
        ],
        "growths": [
            {
                "of": growth.name,
                "base_tonnes": _tonnes(growth.base_tonnes),
                "base_rounded_by_source": growth.is_published_base,
                "ratio": rounded(growth.ratio, 6),
            }
            for growth in account.growths
        ],
        "equivalences": [
            {
                "unit": each.unit,
                "more_than": each.floored(account.reduced_tonnes),
                "units": rounded(each.units(account.reduced_tonnes), 2),
                "tonnes_each": rounded(each.tonnes_each, 6),
            }
            for each in books.equivalence
        ],
    }


def _tonnes(tonnes: Fraction) -> str:
    return rounded(tonnes, TONNE_DIGITS)


def _percent(ratio: Fraction) -> str:
    return f"{rounded(ratio * 100, 0)} %"
