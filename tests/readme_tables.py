"""The READMEs' tables that follow from the code: `python -m tests.readme_tables` brings them up to date.

Decides no words: what a table says of a key stays as it stands in the README, and facts (names, defaults, ranges, labels,
help texts) come from the code. A table stands between the lines `<!-- table: NAME -->` and `<!-- end -->`.
"""

import argparse
import importlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from prometheus_client.metrics_core import Metric

from wattledger_agent import cli as agent_cli
from wattledger_agent.config import AgentConfig
from wattledger_agent.doctor_faults import FAULTS
from wattledger_collector import cli as collector_cli
from wattledger_collector import factors
from wattledger_collector.config import Configuration
from wattledger_collector.exposition import Exposition
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factor_refresh import SourceHealth
from wattledger_collector.fleet import FleetView
from wattledger_collector.metrics import FAMILIES
from wattledger_collector.self_metrics import make_registry
from wattledger_collector.store import open_store
from wattledger_collector.web.api import ENDPOINTS
from wattledger_collector.writer import Writer

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

# A new key's words are still to be written; the test of meanings refuses this one.
UNWRITTEN = "TO BE WRITTEN"

_BLOCK = re.compile(r"<!-- table: (?P<name>[a-z-]+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)

Row = Sequence[str]


def main() -> None:
    """Rewrite the tables in the README."""
    README.write_text(fresh(README.read_text()))


def fresh(text: str) -> str:
    """The text with each of its tables as it should be. Raises KeyError for an unknown name of a table."""
    return _BLOCK.sub(
        lambda block: f"<!-- table: {block['name']} -->\n{table(block['name'], block['body'])}<!-- end -->", text
    )


def blocks(text: str) -> dict[str, str]:
    """The tables in a text, by name."""
    return {block["name"]: block["body"] for block in _BLOCK.finditer(text)}


def table(name: str, old: str) -> str:
    """A table as it should be; `old` is what stands there, whose last column's words are kept where they are not facts."""
    header, make = TABLES[name]
    meanings = {row[0]: row[-1] for row in cells(old)}
    lines = [header, ["---"] * len(header), *make(meanings)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells(body: str) -> list[list[str]]:
    """A table's rows, without its header."""
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


# Metrics.


def own_families() -> list[Metric]:
    """What the collector exposes of itself."""
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder) / "ledger.sqlite", create=True)) as store:
        registry = make_registry(Writer(store, collector="c"), lambda: 0, lambda: [SourceHealth("s", {"Z": 0.0}, 0)])
        view = FleetView(collector="c", interval_seconds=store.interval_seconds)
        Exposition(view, registry=registry, insecure_transport=False, version="0")
        return sorted(registry.collect(), key=lambda family: family.name)


def metric_rows() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Name, type, labels and help of every metric."""
    for family in FAMILIES:
        yield family.name, family.kind, family.labels, family.help
    for own in own_families():
        name = f"{own.name}_total" if own.type == "counter" else own.name
        labels = {label for sample in own.samples for label in sample.labels}
        yield name, own.type, tuple(sorted(labels)), own.documentation


def _metrics(_: Mapping[str, str]) -> Iterator[Row]:
    for name, kind, labels, text in metric_rows():
        yield f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), _plain(text)


# Configuration.


def settings(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default and what it takes, of every setting of a struct and the structs in it."""
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        place = f"{path}{field.encode_name}"
        inner, is_list = _inner(hints[field.name])
        if inner is not None:
            yield from settings(inner, f"{place}[]." if is_list else f"{place}.")
        else:
            yield place, _default(field), _takes(hints[field.name])


def _inner(hint: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The struct that a hint holds, and whether it holds a list of them."""
    for part in (hint, *get_args(hint)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part, get_origin(hint) is tuple
    return None, False


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "needed"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return f"`{_toml(value)}`"


def _toml(value: object) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case tuple() | list():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return "{}"
        case _:
            return str(value)


_WORDS: Mapping[object, str] = {
    str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Decimal: "number",
}  # fmt: skip


def _takes(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{_takes(arguments[0])}{_span(arguments[1])}"
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, UnionType):
        return _takes(next(part for part in arguments if part is not type(None)))
    if origin is tuple:
        return f"list of {_takes(arguments[0])}"
    if origin is dict:
        return "table of text"
    return _WORDS.get(hint, "date" if getattr(hint, "__name__", "") == "date" else str(hint))


def _span(meta: msgspec.Meta) -> str:
    low, high = meta.ge, meta.le
    if low is not None and high is not None:
        return f", {low:g} to {high:g}" if isinstance(low, float) else f", {low} to {high}"
    if low is not None and meta.lt is not None:
        return f", {low:g} to less than {meta.lt:g}"
    return f", {low:g} or more" if low is not None else ""


def _settings(struct: type[msgspec.Struct]) -> Callable[[Mapping[str, str]], Iterator[Row]]:
    def rows(meanings: Mapping[str, str]) -> Iterator[Row]:
        for key, default, takes in settings(struct):
            yield f"`{key}`", default, takes, meanings.get(f"`{key}`", UNWRITTEN)

    return rows


# Commands.


def command_parsers() -> dict[str, argparse.ArgumentParser]:
    """The two programs' parsers, by name."""
    return {parser.prog: parser for parser in (agent_cli._parser(), collector_cli._parser())}


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command, by the words that call it."""
    found: dict[str, argparse.ArgumentParser] = {}

    def add(parser: argparse.ArgumentParser) -> None:
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not inner:
            found[parser.prog] = parser
        for action in inner:
            for each in action.choices.values():
                add(each)

    for program in command_parsers().values():
        add(program)
    return found


def _helps() -> dict[str, str]:
    """The one-line help of every command, by the words that call it."""
    found: dict[str, str] = {}

    def add(parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action._choices_actions:
                    found[f"{action._prog_prefix} {choice.dest}"] = choice.help or ""
                for each in action.choices.values():
                    add(each)

    for program in command_parsers().values():
        add(program)
    return found


def _commands(_: Mapping[str, str]) -> Iterator[Row]:
    helps = _helps()
    for words, parser in parsers().items():
        yield f"`{words}`", _plain(helps[words]), "<br>".join(_arguments(parser))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
        name = (
            f"{action.option_strings[-1]} {value}".strip() if action.option_strings else str(action.metavar or action.dest)
        )
        if not action.option_strings and action.nargs == "?":
            name = f"[{name}]"
        yield f"`{name}`" + (f" {_plain(action.help)}" if action.help else "")


# The rest.


def _endpoints(_: Mapping[str, str]) -> Iterator[Row]:
    for endpoint in ENDPOINTS:
        parameters = "<br>".join(f"`{name}` {_plain(meaning)}" for name, meaning in endpoint.parameters)
        yield f"`{endpoint.path}`", _plain(endpoint.summary), parameters


def _factor_columns(_: Mapping[str, str]) -> Iterator[Row]:
    documented = dict(re.findall(r"^(\w+) {2,}(\S.*)$", factors.__doc__ or "", re.MULTILINE))
    for column in factors.COLUMNS:
        yield f"`{column}`", _plain(documented[column])


def _attributions(_: Mapping[str, str]) -> Iterator[Row]:
    for source, licence, words in load_catalog().attributions:
        yield f"`{source}`", _plain(words), _plain(licence)


def constant(path: str) -> object:
    """The value of `package.module.NAME`."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _limits(meanings: Mapping[str, str]) -> Iterator[Row]:
    for cell, meaning in meanings.items():
        yield cell, _number(cell.strip("`"), constant(cell.strip("`"))), meaning


def _number(path: str, value: object) -> str:
    if not isinstance(value, int | float | Decimal):
        raise TypeError(f"{path} is {value!r}: a limit is a number")
    if "_BYTES" in path and value >= 1024:
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value >= size and value % size == 0:
                return f"{int(value) // size} {unit}"
    unit = next((f" {word}" for mark, word in (("_SECONDS", "s"), ("_WATTS", "W")) if mark in path), "")
    return f"{value:,}{unit}".replace(",", " ") if isinstance(value, int) else f"{value:g}{unit}"


def _faults(_: Mapping[str, str]) -> Iterator[Row]:
    for fault in FAULTS.values():
        words = (_facts_in_capitals(_plain(text).replace("*", "\\*")) for text in (fault.what, fault.remedy))
        yield f"`{fault.id}`", fault.check, *words


def _facts_in_capitals(text: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda fact: fact[1].upper(), text)


def _plain(text: str) -> str:
    """Text for a cell."""
    return text.replace("%%", "%").replace("|", "\\|").replace("<", "&lt;")


def _header(*names: str) -> list[str]:
    return list(names)


TABLES: Mapping[str, tuple[list[str], Callable[[Mapping[str, str]], Iterable[Row]]]] = {
    "metrics": (_header("metric", "type", "labels", "meaning"), _metrics),
    "agent-settings": (_header("key", "default", "takes", "meaning"), _settings(AgentConfig)),
    "collector-settings": (_header("key", "default", "takes", "meaning"), _settings(Configuration)),
    "commands": (_header("command", "what it does", "arguments"), _commands),
    "endpoints": (_header("path", "answer", "parameters"), _endpoints),
    "factor-columns": (_header("column", "meaning"), _factor_columns),
    "attributions": (_header("series", "named as", "terms"), _attributions),
    "doctor-findings": (_header("finding", "of", "what is wrong", "remedy"), _faults),
    "limits": (_header("constant", "value", "what it bounds"), _limits),
}


if __name__ == "__main__":
    main()
