"""Who may import whom: the two halves meet in the wire alone, and pure modules touch no clock, socket, file or thread."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
AGENT = ROOT / "agent/wattledger_agent"
COLLECTOR = ROOT / "collector/wattledger_collector"
PROTOS = ROOT / "protos/wattledger_protos"

# By half; the words after a folder are its pure modules.
PURE_NAMES = {
    AGENT: """
        arm_cpus attribution certificate_dates cgroup_names channels config containment counters cpu_times
        cpus cross_checks delivery_text doctor_faults doctor_told folding gauges joining known_faults meter own_energy
        readings roster rows session shares silence topology usage wire workload_accounts workload_meter wraps
    """,
    COLLECTOR: """
        accounting bands books certificate_table certificates channel_ends clocks closures columns config csv_table
        declared declared_pue der embodied emission_bases emission_counters emission_terms facility factor_catalog
        factor_checks factor_claims factor_units factors gaps hello import_series imported_time imports intervals
        inventory inventory_report leaves ledger log_border market market_bands market_load market_words merkle pieces
        plausible records residual_mixes restating restating_market rounding sci session signed_note statement
        statement_imports statement_load statement_market statement_uncertainty statement_values tally time_stamps
        uncertainty verdict verify_claims verify_figures verify_first verify_imports verify_market verify_market_bands
        verify_together verify_uncertainty verify_values wire witness workload_ledger workload_records
    """,
}
PURE = [folder / f"{name}.py" for folder, names in PURE_NAMES.items() for name in names.split()]

# Modules that a pure module may not import: clocks, sockets, files, threads, chance and frameworks.
IMPURE = {
    "alembic", "asyncio", "datetime.now", "grpc", "http", "io", "multiprocessing", "os", "pathlib", "prometheus_client",
    "psutil", "random", "secrets", "select", "shutil", "signal", "socket", "sqlalchemy", "sqlite3", "ssl", "starlette",
    "subprocess", "tempfile", "threading", "time", "urllib", "uuid", "uvicorn",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """All modules that a file imports, wherever in the file; what is imported for type checking alone does not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            # A name taken from a package itself is a module.
            is_package = "." not in node.module and node.module.startswith("wattledger")
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if is_package else {node.module}
    return found


def top(modules: set[str]) -> set[str]:
    """The top-level names of modules."""
    return {module.partition(".")[0] for module in modules}


def test_the_halves_never_import_each_other() -> None:
    """Agent and collector meet in the wire's messages alone; the wire imports neither."""
    for folder, foreign in ((AGENT, {"wattledger_collector"}), (COLLECTOR, {"wattledger_agent"}),
                            (PROTOS, {"wattledger_agent", "wattledger_collector"})):  # fmt: skip
        for path in folder.rglob("*.py"):
            assert not top(imports(path)) & foreign, path


@pytest.mark.parametrize("path", PURE, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_pure_modules_import_nothing_impure(path: Path) -> None:
    """A pure module can be run in a simulation a thousand times a second, with time as an argument."""
    assert not top(imports(path)) & IMPURE


@pytest.mark.parametrize("path", PURE, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_pure_modules_stand_on_pure_modules(path: Path) -> None:
    """What a pure module imports of ours is pure too, so that nothing impure comes in by a detour."""
    pure = {f"{pure.parent.name}.{pure.stem}" for pure in PURE}
    ours = {module for module in imports(path) if module.startswith(("wattledger_agent", "wattledger_collector"))}
    assert ours <= pure


def test_grpc_is_imported_by_the_shipper_alone() -> None:
    """The agent's other commands start without gRPC's memory and time."""
    importers = {path.name for path in AGENT.rglob("*.py") if "grpc" in top(imports(path))}
    assert importers == {"shipper.py"}


def test_no_module_is_called_common_or_utils() -> None:
    """A module's name says what it is for."""
    names = {path.stem for folder in (AGENT, COLLECTOR, PROTOS) for path in folder.rglob("*")}
    assert not names & {"common", "utils", "util", "helpers", "misc"}


def test_a_running_collector_is_without_numpy() -> None:
    """Its libraries ask the kernel for more than the unit's filter of system calls admits; reports alone have use for it."""
    program = "import sys, wattledger_collector.cli, wattledger_collector.service; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
