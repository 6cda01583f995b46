"""Panels of what sensors say of themselves and of each other, for the hosts that a selector takes: for several dashboards.

Of a fleet they draw the few series that stand out, the same ones at every instant. Metrics: wattledger_cross_check_*,
wattledger_source_*, wattledger_device_*, wattledger_agent_* of collector/wattledger_collector/metrics.py.
"""

from grafana_foundation_sdk.builders import timeseries

from grafana.panels import CELSIUS, COUNT, HERTZ, RATIO, SECONDS, WATTS, Frame, Query, time_panel
from grafana.shapes import over_time, ratio_over_time

# What keeps a GPU below its clocks by fault: heat, or too little power from the board or the machine. A power cap
# (sw_power_cap) and clocks that were set are decisions, and gpu_idle is rest.
FAULTY_THROTTLE = 'reason=~"hw_slowdown|hw_thermal_slowdown|sw_thermal_slowdown|hw_power_brake_slowdown"'

_NO_CHECK = "No quantity is metered by two sources here (or for less than a minute)"
_NO_SLOW = "No source here is asked in the background: IPMI and Redfish are set up in agent.toml"
_NO_GPU = "No GPU tells this here: wattledger-agent doctor says why"
_NO_GPM = "No GPU tells this here: it needs Hopper or newer and sources.nvidia.gpm = true in agent.toml"
_NO_AGENT = "The agents do not tell this: upgrade them"


def largest(gauge: str, count: int = 20) -> str:
    """The series of a gauge that were farthest from zero in the range shown: the same ones at every instant of it.

    Without this a fleet's panel would draw thousands of lines; a plain topk would draw others at each instant.
    """
    return f"{gauge} and topk({count}, max_over_time(abs({gauge})[$__range:1m] @ end()))"


def disagreement(selector: str, *, width: int, name: str = "{{host}} ") -> timeseries.Panel:
    """How far apart two sources of one quantity are. name: how a legend begins."""
    check = f'wattledger_cross_check_disagreement_ratio{{{selector}, source!="estimate"}}'
    return ratio_over_time(
        "Sources that disagree",
        "Energy by the source that is not booked / energy by the booked one, less 1, over the last minutes. The 20 largest. "
        "A few percent are the sensors' own error; a node meter at the mains sees the power supplies' losses, too.",
        _NO_CHECK,
        Query(largest(check), name + "{{device}}: {{source}} {{domain}} / {{reference_source}} {{reference_domain}}"),
        width=width,
        is_difference=True,
    )


def estimate_bias(selector: str, *, width: int, name: str = "{{host}} ") -> timeseries.Panel:
    """What the estimate says of hosts that are metered, against their meters."""
    check = f'wattledger_cross_check_disagreement_ratio{{{selector}, source="estimate"}}'
    return ratio_over_time(
        "Bias of the estimate",
        "Estimated / metered energy, less 1, on hosts that have a meter: what to expect of the estimate on hosts of their "
        "kind that have none. Nothing is corrected by it. The 20 largest.",
        "No metered host here is estimated beside its meter",
        Query(largest(check), name + "{{device}} / {{reference_source}} {{reference_domain}}"),
        width=width,
        is_difference=True,
    )


def reading_age(selector: str, *, width: int, name: str = "{{host}} ") -> timeseries.Panel:
    """Age of the values of slow sources."""
    return over_time(
        "Age of slow sources' values",
        "Time since a management controller (or an accelerator's command) last told a new value. It saws between nothing "
        "and the cadence; one that climbs has stopped answering. The 20 oldest.",
        SECONDS,
        _NO_SLOW,
        Query(largest(f"wattledger_source_reading_age_seconds{{{selector}}}"), name + "{{device}}"),
        width=width,
    )


def unused_values(selector: str, *, width: int) -> timeseries.Panel:
    """Values that did not come, or could not be used."""
    kinds = {
        "failed_reads": "not given by a sensor",
        "unbelieved_readings": "could not be true",
        "ignored_readings": "of no offered channel",
        "ignored_rows": "out of order",
    }
    rates = (
        Query(f"sum(rate(wattledger_agent_{kind}_total{{{selector}}}[$__rate_interval]))", legend)
        for kind, legend in kinds.items()
    )
    return over_time(
        "Values not used, a second",
        "Values that were not read, or were not believed. A hardware counter has them in its next value; where power is "
        "integrated they are a gap with bounds.",
        COUNT,
        _NO_AGENT,
        *rates,
        width=width,
    )


def gpu_temperature(selector: str, *, width: int, name: str = "{{host}} ") -> timeseries.Panel:
    """Temperatures of devices."""
    return over_time(
        "Temperature",
        "Of GPUs and accelerators, as they tell it. The 20 hottest.",
        CELSIUS,
        _NO_GPU,
        Query(largest(f"wattledger_device_temperature_celsius{{{selector}}}"), name + "{{device}}"),
        width=width,
    )


def gpu_clocks(selector: str, *, width: int) -> timeseries.Panel:
    """Clocks: mean and least."""
    clock = f"wattledger_device_clock_hertz{{{selector}}}"
    return over_time(
        "GPU clocks",
        "Mean over the GPUs, and the slowest of them. Resting GPUs lower theirs; one that works and is slow is held down "
        "for one of the reasons beside this.",
        HERTZ,
        _NO_GPU,
        Query(f"avg by (clock) ({clock})", "{{clock}}, mean"),
        Query(f"min by (clock) ({clock})", "{{clock}}, slowest"),
        width=width,
    )


def throttle_reasons(selector: str, *, width: int) -> timeseries.Panel:
    """GPUs by what holds their clocks down."""
    return over_time(
        "GPUs held down, by reason",
        "GPUs whose clocks are lowered at present, by NVML's names. gpu_idle is rest, sw_power_cap the power limit at work; "
        "hw_ reasons and sw_thermal_slowdown are heat or too little power. One GPU may have several.",
        COUNT,
        "No GPU is held down, or none tells why",
        Query(f"sum by (reason) (wattledger_device_throttle_reasons{{{selector}}})", "{{reason}}"),
        width=width,
    )


def power_against_limit(selector: str, *, width: int, name: str = "{{host}} ") -> timeseries.Panel:
    """Share of its power limit that a GPU draws."""
    by = "by (host, device)"
    gpu = f'wattledger_channel_energy_joules_total{{{selector}, component="gpu", method!="model"}}'
    power = f"sum {by} (rate({gpu}[$__rate_interval]))"
    most = f"topk(20, sum {by} (increase({gpu}[$__range] @ end())))"
    limit = f"max {by} (wattledger_device_power_limit_watts{{{selector}}})"
    shares = f"{power} / on (host, device) ({limit} > 0)"
    return ratio_over_time(
        "Power of its limit",
        "Measured power / the most that the GPU may draw at present (its power limit). At 100 % the limit "
        "holds it down. The 20 that used most energy.",
        _NO_GPU,
        Query(f"{shares} and on (host, device) {most}", name + "{{device}}"),
        width=width,
    )


def gpu_activity(selector: str, *, width: int) -> timeseries.Panel:
    """How busy GPUs are, by three measures."""
    measures = {
        "utilization": "a kernel ran",
        "sm_active": "multiprocessors had work",
        "tensor_active": "tensor units worked",
    }
    return ratio_over_time(
        "GPU activity",
        "Means over GPUs. A kernel that runs, however small, makes a GPU 100 % busy; the share of multiprocessors with "
        "work, and of time in which tensor units worked, say more. Below 50 % of multiprocessors a GPU is likely wasted.",
        _NO_GPM,
        *(
            Query(f'avg(wattledger_{measure}_ratio{{{selector}, device=~"gpu/.+"}})', legend)
            for measure, legend in measures.items()
        ),
        width=width,
    )


def power_by_window(selector: str, *, width: int) -> timeseries.Panel:
    """What devices call average and instant power."""
    return time_panel(
        Frame(
            "Average and instant power",
            "What GPUs themselves call average (over a second) and instant power, added up. Neither is booked where the GPU "
            "has an energy counter.",
            WATTS,
            _NO_GPU,
            width,
            min_value=0,
        ),
        Query(f"sum by (window) (wattledger_device_power_watts{{{selector}}})", "{{window}}"),
    )


def agent_power(selector: str, *, width: int) -> timeseries.Panel:
    """What agents themselves draw, by their own estimate."""
    return over_time(
        "What agents draw",
        "An estimate: the agent's share of busy CPU time, of the CPUs' measured power. Idle power is in it, so that on a "
        "host that does nothing else the agent has most of an idling CPU. It is within the hosts' energy.",
        WATTS,
        "No CPU is measured here, or the agents do not tell: upgrade them",
        Query(f"sum(rate(wattledger_agent_energy_joules_total{{{selector}}}[$__rate_interval]))", "all agents"),
        Query(f"max(rate(wattledger_agent_energy_joules_total{{{selector}}}[$__rate_interval]))", "the largest"),
        width=width,
    )


def agent_work(selector: str, *, width: int) -> timeseries.Panel:
    """Wake-ups of agents."""
    return over_time(
        "Wake-ups of an agent, a second",
        "Mean over the hosts, and the largest. Each takes a sleeping core out of its rest for some microseconds.",
        COUNT,
        _NO_AGENT,
        Query(f"avg(rate(wattledger_agent_wakeups_total{{{selector}}}[$__rate_interval]))", "mean"),
        Query(f"max(rate(wattledger_agent_wakeups_total{{{selector}}}[$__rate_interval]))", "largest"),
        width=width,
    )


def agent_cpu(selector: str, *, width: int) -> timeseries.Panel:
    """CPU time of agents, as a share of one CPU."""
    rate = f"rate(wattledger_agent_cpu_seconds_total{{{selector}}}[$__rate_interval])"
    frame = Frame(
        "CPU time of an agent",
        "As a share of one CPU: mean over the hosts, and the largest.",
        RATIO,
        _NO_AGENT,
        width,
        decimals=2,
        min_value=0,
    )
    return time_panel(frame, Query(f"avg({rate})", "mean"), Query(f"max({rate})", "largest"))
