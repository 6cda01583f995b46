"""The READMEs say what is: tables, examples, links and figures are compared with the code.

Words are not judged. What a stale table says is mended by `python -m tests.readme_tables`.
"""

import argparse
import contextlib
import io
import re
import shlex
import tomllib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import pytest
from tests import readme_tables
from tests.readme_tables import ROOT, TABLES, UNWRITTEN

from wattledger_agent.config import AgentConfig, parse_config
from wattledger_agent.curves import read_table
from wattledger_agent.estimates import BAND_OUTSIDE
from wattledger_agent.sampler import INTEGRAL_GAP_SECONDS_MIN
from wattledger_agent.simulate import REGRESSION_AFTER_SECONDS, REGRESSION_HOST
from wattledger_agent.sources import SOURCES
from wattledger_agent.sources.nvidia import LOST_READS_MAX
from wattledger_collector.config import Configuration, check_zones, parse_configuration
from wattledger_collector.factor_files import load_catalog
from wattledger_collector.factors import parse_factors
from wattledger_collector.metrics import FAMILIES
from wattledger_collector.quickstart import DEMO_HOSTS
from wattledger_collector.records import INTERVAL_SECONDS_DEFAULT, MICROJOULES_PER_KWH, GapReason, Quality
from wattledger_collector.tally import BRIDGED_SPAN_NANOSECONDS

README = (ROOT / "README.md").read_text()

# Written for those who change a part; deploy has pages of its own, which its own tests keep.
FOLDERS = ("agent", "collector", "protos", "tests")
PAGES = [ROOT / "README.md", *(ROOT / folder / "README.md" for folder in FOLDERS)]

SECTIONS = [
    "The command", "What you now see", "Get measured figures", "Add your fleet", "Tests", "How each number is made",
    "Metric table", "Configuration", "Failures", "Limits", "Attributions", "Changes",
]  # fmt: skip

IMAGE_BYTES_MAX = 300_000  # What a reader's browser loads before the first sentence is read.

# Programs in the examples that are not ours, and words with our prefix that are no metrics.
FOREIGN_PROGRAMS = {"openssl", "sudo", "curl", "rm", "git", "cd", "."}
FOREIGN_OPTIONS = {"--no-deps", "--system", "--reload", "--subsystem-match", "--action", "--shm-size"}
PACKAGES = {"wattledger_agent", "wattledger_collector", "wattledger_protos"}


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    """Each README that this file keeps."""
    path = request.param
    assert isinstance(path, Path)
    return path


def fenced(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return ["\n".join(line.removeprefix(indent) for line in body.splitlines()) for indent, body in found]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """What the console examples type, as words, without where their output goes."""
    lines = [line for block in fenced(text, "console") for line in block.splitlines()]
    typed = [line.removeprefix("$ ").removesuffix(" &") for line in lines if line.startswith("$ ")]
    return [shlex.split(line.partition(" > ")[0]) for line in typed]


def rows(name: str) -> list[list[str]]:
    """The cells of one of README.md's tables."""
    return readme_tables.cells(readme_tables.blocks(README)[name])


def column(heading: str) -> list[str]:
    """The first cells of the first table that begins with this heading."""
    _, found, after = README.partition(f"\n| {heading} |")
    assert found, f"README.md has no table that begins with {heading!r}"
    table = after.partition("\n\n")[0]
    return [cells[0].strip("`") for cells in readme_tables.cells(f"| {heading} |{table}\n")]


def sections(text: str, level: int) -> list[str]:
    """Headings of a level, in order."""
    return re.findall(rf"^{'#' * level} (.+)$", prose(text), re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that a rendered page has: headings in lower case, spaces as hyphens, other signs left out."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name: str) -> None:
    """Every metric, setting, command, endpoint, column and constant is in its table as it is in the code."""
    found = readme_tables.blocks(README)[name]
    assert found == readme_tables.table(name, found), "stale: run .venv/bin/python -m tests.readme_tables"


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_its_words(name: str) -> None:
    """A new key is explained, and no table is empty."""
    assert rows(name)
    for cells in rows(name):
        assert cells[0].strip("`")
        if name not in ("endpoints", "commands"):
            assert cells[-1] not in ("", UNWRITTEN), f"{name}: say what {cells[0]} means"


def test_sections_stand_in_the_order_of_a_first_visit() -> None:
    """From the command to the reference; changes come last."""
    assert sections(README, 2) == SECTIONS


def test_the_picture_is_there_and_small() -> None:
    """The first thing on the page is a picture of the built-in page."""
    first = re.search(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert first is not None
    assert README.index(first[0]) < README.index("## The command")
    image = (ROOT / first[1]).read_bytes()
    assert image.startswith(b"\x89PNG\r\n")
    assert len(image) <= IMAGE_BYTES_MAX


def test_the_changes_know_the_release() -> None:
    """The newest section of the changes is the version that is packaged."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert sections(README.partition("\n## Changes\n")[2], 3)[0] == version


def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that are there, and anchors name headings."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page.name}: {target}"


def test_paths_in_the_text_are_there(page: Path) -> None:
    """What looks like a file of this repository is one."""
    for name in re.findall(r"`((?:agent|collector|deploy|protos|tests)/[\w./*-]+)`", prose(page.read_text())):
        assert list(ROOT.glob(name.rstrip("/"))), f"{page.name}: {name}"


def test_no_metric_is_made_up(page: Path) -> None:
    """Every name with the prefix of the metrics is one of them, or a package."""
    known = {name for name, *_ in readme_tables.metric_rows()} | PACKAGES
    for name in re.findall(r"\bwattledger_[a-z_]+\b", page.read_text()):
        assert name in known, f"{page.name}: {name}"


def test_no_option_is_made_up(page: Path) -> None:
    """Every option named in the text belongs to one of the commands."""
    known = {option for parser in readme_tables.parsers().values() for option in parser.format_help().split()}
    known = {option.strip("[],") for option in known} | FOREIGN_OPTIONS | {"--verbose", "--help"}
    tools = set(re.findall(r"--[a-z][a-z-]+", (ROOT / "Makefile").read_text()))
    tools |= {option for path in (ROOT / "tests").rglob("*.py") for option in re.findall(r'"(--[a-z-]+)"', path.read_text())}
    # Remedies are commands of other programs.
    text = page.read_text()
    text = text.replace(readme_tables.blocks(text).get("doctor-findings", "\0"), "")
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
        assert option in known | tools, f"{page.name}: {option}"


def test_examples_of_commands_are_understood(page: Path) -> None:
    """What the console examples type is accepted by the real parsers, or is a target of the Makefile."""
    parsers = readme_tables.command_parsers()
    for words in commands(page.read_text()):
        program = Path(words[0]).name
        if program in parsers:
            assert accepts(parsers[program], words[1:]), words
        elif program == "make":
            check_make(words[1:])
        elif program.startswith("python"):
            assert (ROOT / words[1]).exists() or words[1] == "-m", words
        else:
            assert program in FOREIGN_PROGRAMS, words


def accepts(parser: argparse.ArgumentParser, arguments: list[str]) -> bool:
    """Whether a parser takes these arguments."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_args(arguments)
        except SystemExit:
            return False
    return True


def check_make(words: list[str]) -> None:
    """A target and variables that the Makefile has."""
    makefile = (ROOT / "Makefile").read_text()
    targets = [word for word in words if "=" not in word]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            assert f"$({name})" in makefile, word
        if name == "ARGS" and targets == ["run"]:
            assert accepts(readme_tables.command_parsers()["wattledger-collector"], ["quickstart", *shlex.split(value)])


def test_make_commands_in_the_text_exist(page: Path) -> None:
    """`make something` in a sentence is a target too."""
    for command in re.findall(r"`(make [^`]+)`", prose(page.read_text())):
        check_make([word for word in shlex.split(command)[1:] if word != "..."])


def test_modules_to_run_exist(page: Path) -> None:
    """`python -m something` names a module of this repository."""
    for module in re.findall(r"python -m ([\w.]+)", page.read_text()):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{page.name}: {module}"
    for script in re.findall(r"python ([\w/]+\.py)", page.read_text()):
        assert (ROOT / script).is_file(), f"{page.name}: {script}"


def test_examples_of_configuration_are_accepted(page: Path) -> None:
    """Each TOML example says of which file it is, and the real parser takes it."""
    for text in fenced(page.read_text(), "toml"):
        match text.partition("\n")[0]:
            case "# agent.toml":
                parse_config(text)
            case "# collector.toml":
                check_zones(parse_configuration(text), load_catalog())
            case other:
                pytest.fail(f"{page.name}: an example begins with {other!r}, not with the name of its file")


def test_the_example_of_a_factor_file_is_accepted() -> None:
    """The factor file shown can be used as it stands."""
    for text in fenced(README, "csv"):
        assert parse_factors(text, "README.md")


def test_the_example_of_metrics_is_of_metrics() -> None:
    """Every line has the labels that its metric has."""
    labels_of = {family.name: list(family.labels) for family in FAMILIES}
    lines = [line for block in fenced(README, "text") for line in block.splitlines() if line.startswith("wattledger_")]
    assert len(lines) >= 3
    for line in lines:
        name, _, rest = line.partition("{")
        assert re.findall(r'(\w+)="', rest) == labels_of[name], line


def test_every_source_is_explained() -> None:
    """The sources are those of the register, and the one that the sampler does not ask."""
    assert column("source") == [*SOURCES, "replay"]


def test_every_word_of_quality_and_gap_is_explained() -> None:
    """What stands in reports stands in the README."""
    assert sorted(column("quality")) == sorted(quality.name.lower() for quality in Quality)
    assert column("gap") == [reason.value for reason in GapReason]


def test_failures_name_tests_that_exist() -> None:
    """Each line of the failures is shown by a test."""
    section = README.partition("\n## Failures\n")[2].partition("\n## ")[0]
    lines = readme_tables.cells(section[section.index("| what fails") :])
    assert len(lines) >= 25
    for cells in lines:
        link = re.fullmatch(r"\[(test_\w+)\]\(([\w/.]+)\)", cells[-1])
        assert link is not None, cells
        assert f"\ndef {link[1]}(" in (ROOT / link[2]).read_text(), cells


def test_published_figures_name_tests_that_exist() -> None:
    """Each line of the published figures is held by tests, or by a file of them."""
    section = (ROOT / "tests/README.md").read_text().partition("\n## Published figures")[2].partition("\n## ")[0]
    lines = readme_tables.cells(section[section.index("| published by") :])
    assert len(lines) >= 20
    for cells in lines:
        links = re.findall(r"\[(test_\w+)(\.py)?\]\(([\w/.]+)\)", cells[-1])
        assert ", ".join(f"[{name}{end}]({path})" for name, end, path in links) == cells[-1]
        for name, end, path in links:
            text = (ROOT / "tests" / path).read_text()
            assert path.endswith(f"/{name}.py") if end else f"\ndef {name}(" in text, cells


def test_the_worked_example_is_right() -> None:
    """The report's figures are what a hand reckons from the trace's sum, PUE and factor."""
    watt_hours = Decimal(re.findall(r"add up to ([\d ]+\.\d+) Wh", README)[0].replace(" ", ""))
    microjoules = int(re.findall(r"the ledger has\s+([\d ]+\d)", README)[0].replace(" ", ""))
    pue, factor, grams = re.findall(r"Times ([\d.]+) times ([\d.]+) g/kWh,\s+these are ([\d ]+\.\d+) g", README)[0]
    assert microjoules == int(watt_hours * 3_600_000_000)
    exact = microjoules * Fraction(pue) * Fraction(factor) / MICROJOULES_PER_KWH
    assert f"{float(exact):.6f}" == grams.replace(" ", "")
    command, _, output = (ROOT / "tests/golden/replay_report.txt").read_text().partition("\n\n$ ")[0].partition("\n")
    assert command.removeprefix("$ ") in README
    assert output.strip() in fenced(README, "text"), "stale: copy the report from tests/golden/replay_report.txt"
    assert f"Emissions: {float(exact) / 1000:.3f} kg CO2e" in output


def test_quoted_numbers_are_those_of_the_code() -> None:
    """Numbers in sentences are those of the constants that they speak of."""
    assert f"every {INTERVAL_SECONDS_DEFAULT // 60} minutes" in README
    assert f"over a hole of more than {BRIDGED_SPAN_NANOSECONDS // 1_000_000_000} s" in README
    assert f"{len(load_catalog().zones)} zones come with" in README
    curves = read_table()
    assert f"{len(curves)} published results" in README
    assert f"{len({curve.server.cpu for curve in curves})} CPU models" in README
    assert f"{AgentConfig().spool_quota_mebibytes} MiB are weeks" in README
    band = BAND_OUTSIDE
    assert f"(−{band.lower_ratio:.0%} to +{band.upper_ratio:.0%}".replace("%", " %") in README
    assert f"silent for {Configuration().silence.staleness_seconds} s" in README
    assert f"away for longer than {INTEGRAL_GAP_SECONDS_MIN:.0f} s" in README
    assert f"closed after {WORDS[LOST_READS_MAX]} reads" in README
    assert f"{DEMO_HOSTS} simulated hosts" in README
    assert f"`simulated-{REGRESSION_HOST:02d}`, needs more power" in README
    assert f"after {WORDS[REGRESSION_AFTER_SECONDS // 60]} minutes" in README
    machines = [path for path in (ROOT / "tests/fixtures").iterdir() if (path / "proc").is_dir()]
    quoted = re.search(r"more than (\d+) fixture machines", README)
    assert quoted is not None
    assert int(quoted[1]) < len(machines) < 2 * int(quoted[1])


WORDS = dict(
    enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"])
)


@pytest.mark.parametrize(
    ("folder", "package"),
    [("agent", "wattledger_agent"), ("collector", "wattledger_collector"), ("protos", "wattledger_protos")],
)
def test_every_module_is_on_the_map(folder: str, package: str) -> None:
    """Who changes a half finds each of its modules in its README, and none that is gone."""
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / folder / "README.md").read_text()))
    root = ROOT / folder / package
    modules = {str(path.relative_to(root)) for path in root.rglob("*.py") if path.name != "__init__.py"}
    modules = {name for name in modules if not name.startswith("migrations/") and "_pb2" not in name}
    assert modules - named == set(), f"name these in the map of {folder}/README.md"
    made_up = {name for name in named - modules if not list((ROOT / folder).rglob(name)) and not (ROOT / name).exists()}
    assert made_up == set(), f"the map of {folder}/README.md names modules that are not there"


def test_every_folder_of_tests_is_on_the_map() -> None:
    """Who adds a test finds where it belongs."""
    text = (ROOT / "tests/README.md").read_text()
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders == set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE))
    for path in (ROOT / "tests").glob("*.py"):
        assert f"`{path.name}`" in text, path.name
