"""What people read of workloads: figures under the name of their method and policy, and what is left beside the largest."""

from pathlib import Path

from tests.agent.machines import machine
from tests.agent.scripted import Clock

from wattledger_agent import doctor, once
from wattledger_agent.config import AgentConfig, CpuConfig, FakeConfig, SourcesConfig, WorkloadsConfig
from wattledger_agent.inventory import Inventory, Roots, close_all, find_sources
from wattledger_agent.readings import Component, IdlePolicy, Method, Workload, WorkloadKind
from wattledger_agent.workload_accounts import Accounts
from wattledger_agent.workload_lines import SHOWN_MAX, as_text, workload_lines
from wattledger_agent.workload_setup import open_workloads

FLOW = (Component.CPU, Method.COUNTER)
POD = WorkloadKind.KUBERNETES_POD


def accounts(count: int) -> Accounts:
    """Pods with 1 J, 2 J ..., 3 J that idled and 4 J that are nobody's."""
    these = Accounts(IdlePolicy.NODE_ONLY, 400)
    these.present({number: Workload(POD, f"u{number}", "ns", f"p{number}") for number in range(1, count + 1)})
    these.book(FLOW, {number: number * 1_000_000 for number in range(1, count + 1)}, 3_000_000, 4_000_000)
    return these


def test_the_largest_stand_first_and_the_rest_together() -> None:
    """All lines together are all energy there is."""
    lines = workload_lines(accounts(12).all(), 1.0)
    assert [line.name for line in lines[:SHOWN_MAX]] == [f"p{number}" for number in range(12, 2, -1)]
    assert [(line.kind, line.power_watts) for line in lines[SHOWN_MAX:]] == [
        ("other", 3.0),
        ("unattributed", 4.0),
        ("idle", 3.0),
    ]


def test_every_figure_stands_under_its_method_and_policy() -> None:
    """Without them it can't be compared with another's."""
    text = as_text(workload_lines(accounts(1).all(), 2.0), IdlePolicy.BY_RESERVATION)
    assert text[0] == "by workload (time-share; idle energy: by-reservation)"
    assert text[1].split() == ["kubernetes-pod", "ns/p1", "0.5", "W"]


def test_a_modelled_figure_says_so() -> None:
    """Part of it is enough."""
    these = accounts(1)
    these.book((Component.OTHER, Method.MODEL), {1: 5}, 0, 0)
    lines = workload_lines(these.all(), 1.0)
    assert [line.is_modelled for line in lines] == [True, False, False]


def test_without_time_there_is_no_power() -> None:
    """One reading is none."""
    assert workload_lines(accounts(1).all(), 0.0) == []


def roots_of(folder: Path, name: str = "kubernetes_cgroup_v2") -> Roots:
    """A fixture machine's."""
    host = machine(name, folder)
    return Roots(host.sys, host.proc, host.root / "dev")


def test_once_shows_what_the_workloads_draw(tmp_path: Path) -> None:
    """On a machine that stands still there is no energy to divide, but the policy is said as soon as there is."""
    roots = roots_of(tmp_path)
    config = AgentConfig(workloads=WorkloadsConfig(idle_policy="equal"))
    inventory = find_sources(config.sources, roots)
    clock = Clock()
    snapshot = once.look(inventory, clock.instant, clock.sleep, open_workloads(config, roots, inventory))
    assert snapshot.idle_policy is IdlePolicy.EQUAL
    assert '"idle_policy": "equal"' in once.as_json(snapshot)


def test_doctor_says_which_workloads_there_are(tmp_path: Path) -> None:
    """By kind, with the policy and those that used the CPUs most."""
    findings = doctor.examine(AgentConfig(state_dir=str(tmp_path / "state")), roots_of(tmp_path))
    (found,) = [finding for finding in findings if finding.check == "workloads"]
    assert found.verdict == "ok"
    assert "4 of kind kubernetes-pod, 6 of kind systemd-unit" in found.found
    assert "idle energy: node-only" in found.found


def missing(inventory: Inventory) -> list[str]:
    """The names of what can't be read."""
    return [one.source for one in inventory.missing]


def test_workloads_that_are_off_or_have_no_energy_are_not_looked_for(tmp_path: Path) -> None:
    """Simulated energy is nobody's, and a host without a sensor has none."""
    roots = roots_of(tmp_path)
    for config in (
        AgentConfig(workloads=WorkloadsConfig(enabled=False)),
        AgentConfig(sources=SourcesConfig(fake=FakeConfig())),
    ):
        inventory = find_sources(config.sources, roots)
        opened = len(inventory.opened)
        assert open_workloads(config, roots, inventory) is None
        assert len(inventory.opened) == opened
        close_all(inventory)
    assert open_workloads(AgentConfig(), roots, Inventory([], [])) is None


def test_a_host_without_groups_is_metered_as_ever(tmp_path: Path) -> None:
    """What is missing is told with the others."""
    roots = roots_of(tmp_path, "xeon_two_sockets")
    config = AgentConfig(sources=SourcesConfig(cpu=CpuConfig(enabled=False)))
    inventory = find_sources(config.sources, roots)
    assert open_workloads(config, roots, inventory) is None
    assert "workloads" in missing(inventory)
    close_all(inventory)
