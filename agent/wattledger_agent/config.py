"""The agent's configuration: one TOML text in, one checked value out.

Opens no file and reads no clock. What is not in these structures is not a setting: an unknown key is an error that names
the key and the nearest valid one.
"""

import ipaddress
import tomllib
from typing import Annotated, Any, Literal

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0.02, le=3600.0)]

CURVE_POINTS_MAX = 1000
CURVE_WATTS_MAX = 1_000_000.0
CURVE_UPPER_RATIO_MAX = 100.0

LABELS_MAX = 32  # As many as the wire carries, `hostname` included; labels describe a host, they don't hold data.
LABEL_CHARACTERS_MAX = 256


class ConfigError(Exception):
    """The configuration can't be used; the text says which key has which value, and what to write instead."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table in which an unknown key is an error."""


class CollectorConfig(Strict, frozen=True):
    """Where the agent sends to.

    address: `host:port`. insecure: allow a plain connection to an address that is not loopback.
    ca_file, certificate_file, key_file: PEM files for mutual TLS; all three or none. The host's id is then the one in the
    certificate. server_name: the name to expect in the collector's certificate, where it is not the one in `address`.
    """

    address: str = "127.0.0.1:9791"
    insecure: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    server_name: str = ""

    @property
    def uses_tls(self) -> bool:
        """Whether certificate files are given."""
        return bool(self.ca_file or self.certificate_file or self.key_file)


class RaplConfig(Strict, frozen=True):
    """CPU packages and memory by the kernel's powercap interface.

    psys_is_node_meter: book the platform domain as a meter of the whole node. Off, because its extent differs by platform.
    shared_root: in a virtual machine, the folder in which its host writes the machine's share of energy, laid out as
    /sys/class/powercap (scaphandre's `qemu` exporter does); empty: read the kernel's.
    """

    enabled: bool = True
    psys_is_node_meter: bool = False
    shared_root: str = ""


class HwmonConfig(Strict, frozen=True):
    """Power and energy sensors of the kernel's hwmon class.

    acpi_meter_is_node: a single ACPI power meter, which does not say otherwise, meters the whole node.
    per_core: read the energy counters of single cores too, where the processor's driver has them.
    """

    enabled: bool = True
    acpi_meter_is_node: bool = True
    per_core: bool = False


class AmdGpuConfig(Strict, frozen=True):
    """AMD GPUs by the files of the kernel's driver."""

    enabled: bool = True


class IntelGpuConfig(Strict, frozen=True):
    """Discrete Intel GPUs by the files of the kernel's drivers."""

    enabled: bool = True


class NvidiaConfig(Strict, frozen=True):
    """NVIDIA GPUs by NVML.

    gpm: profile how busy multiprocessors and tensor cores were (Hopper and newer). Off, because profiling may cost power.
    """

    enabled: bool = True
    gpm: bool = False


class GaudiConfig(Strict, frozen=True):
    """Intel Gaudi accelerators by hl-smi, where there is one on the PCI bus."""

    enabled: bool = True
    cadence_seconds: Annotated[float, msgspec.Meta(ge=1.0, le=60.0)] = 2.0


class AscendConfig(Strict, frozen=True):
    """Huawei Ascend accelerators by npu-smi, where there is one on the PCI bus."""

    enabled: bool = True
    cadence_seconds: Annotated[float, msgspec.Meta(ge=1.0, le=60.0)] = 2.0


class IpmiConfig(Strict, frozen=True):
    """The whole node's power by IPMI (DCMI), where the kernel drives a management controller.

    excludes_gpus: the reading does not contain GPUs and accelerators, so that they are added to it.
    cadence_seconds: time between two commands to the controller.
    """

    enabled: bool = True
    excludes_gpus: bool = False
    cadence_seconds: Annotated[float, msgspec.Meta(ge=1.0, le=3600.0)] = 10.0


class RedfishConfig(Strict, frozen=True):
    """The whole node's power by its management controller's Redfish service; read where `address` is set.

    address: `https://host[:port]`. user: an account that may read; empty: none. password_file: a path, or the name of a
    systemd credential; its first line is the password. ca_file: PEM file of the authority that signed the controller's
    certificate; empty: those that the system trusts. insecure: believe any certificate, and allow plain HTTP.
    excludes_gpus, cadence_seconds: as for IPMI. system: id of this server where the controller has several.
    """

    address: str = ""
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    insecure: bool = False
    excludes_gpus: bool = False
    cadence_seconds: Annotated[float, msgspec.Meta(ge=1.0, le=3600.0)] = 10.0
    system: str = ""


class CpuConfig(Strict, frozen=True):
    """CPU and memory utilization."""

    enabled: bool = True


class EstimateConfig(Strict, frozen=True):
    """A model of the whole server's power; booked only where no sensor measures its CPUs.

    cpu_model: take this model's curve in place of the one in /proc/cpuinfo; empty: as found.
    curve_watts: this machine's own curve in place of any model: pairs of load and watts, loads rising from 0.0 to 1.0.
    curve_band: how far the curve may be off, below and above, as parts of its value; empty: unknown, taken as wide.
    """

    enabled: bool = True
    cpu_model: str = ""
    curve_watts: tuple[tuple[float, float], ...] = ()
    curve_band: tuple[float, ...] = ()


class FakeConfig(Strict, frozen=True):
    """Simulated counters for tests and demonstrations.

    truth_path: where the simulated hardware writes what it really counted; empty: nowhere.
    counter_range_joules: the counters return to 0 after this; 0: they never wrap.
    failure_ratio: share of reads that fail.
    """

    seed: int = 1
    packages: Annotated[int, msgspec.Meta(ge=0, le=16)] = 2
    gpus: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    node_meter: bool = False
    truth_path: str = ""
    counter_range_joules: Annotated[int, msgspec.Meta(ge=0)] = 262143
    failure_ratio: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.0


class ReplayConfig(Strict, frozen=True):
    """Recorded power from a CSV or TSV file, or one of them in gzip; with it, no other source is read.

    label: whether a row's time is the start or the end of the span that its mean holds for.
    span_seconds: length of that span. speed: recorded seconds a second; 0: as fast as possible.
    power_bound_watts: bounds what a missing row can hide; 0: one and a half times the recording's highest value.
    """

    path: str
    time_column: str = "timestamp"
    power_column: str = "power_watts"
    time_zone: str = "UTC"
    label: Literal["start", "end"] = "start"
    span_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 3600
    device: str = "node"
    component: Literal["cpu", "memory", "gpu", "accelerator", "other"] = "other"
    power_bound_watts: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    skip_invalid_rows: bool = False
    speed: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class SourcesConfig(Strict, frozen=True):
    """Which sensors are read. `fake` and `replay` are read only where their table is present."""

    rapl: RaplConfig = RaplConfig()
    hwmon: HwmonConfig = HwmonConfig()
    nvidia: NvidiaConfig = NvidiaConfig()
    amd_gpu: AmdGpuConfig = AmdGpuConfig()
    intel_gpu: IntelGpuConfig = IntelGpuConfig()
    gaudi: GaudiConfig = GaudiConfig()
    ascend: AscendConfig = AscendConfig()
    ipmi: IpmiConfig = IpmiConfig()
    redfish: RedfishConfig = RedfishConfig()
    cpu: CpuConfig = CpuConfig()
    estimate: EstimateConfig = EstimateConfig()
    fake: FakeConfig | None = None
    replay: ReplayConfig | None = None


WorkloadName = Literal["kubernetes-pod", "slurm-job", "systemd-unit", "container", "virtual-machine"]


class WorkloadsConfig(Strict, frozen=True):
    """Energy per workload, by control groups.

    idle_policy: to whom the energy of idling hardware goes: nobody (`node-only`), all alike, by usage, or by what each may
    have of the CPUs if all want them. accounts_max: as many workloads, the largest, have accounts of their own.
    flush_seconds: time between two records with accounts. memory: divide memory's energy by who holds it, not by CPU time.
    kubelet_url: where the kubelet of this host tells the names of its pods (https://127.0.0.1:10250, or its read-only port
    http://127.0.0.1:10255); empty: pods are shown by their uids. kubelet_token_file, kubelet_ca_file: for https.
    """

    enabled: bool = True
    idle_policy: Literal["node-only", "equal", "by-usage", "by-reservation"] = "node-only"
    accounts_max: Annotated[int, msgspec.Meta(ge=0, le=400)] = 50
    flush_seconds: Seconds = 60.0
    memory: bool = False
    kinds: tuple[WorkloadName, ...] = ("kubernetes-pod", "slurm-job", "systemd-unit", "container", "virtual-machine")
    kubelet_url: str = ""
    kubelet_token_file: str = ""
    kubelet_ca_file: str = ""


class AgentConfig(Strict, frozen=True):
    """The whole of agent.toml.

    host: the host's id where no certificate names it; empty: one is made at first start and kept in `state_dir`.
    period_seconds: time between two samples. flush_seconds: time between two spool records (each is one fsync).
    spool_quota_mebibytes: the spool never grows beyond it; 256 MiB are weeks.
    """

    host: str = ""
    state_dir: str = "/var/lib/wattledger-agent"
    period_seconds: Seconds = 1.0
    flush_seconds: Seconds = 10.0
    live_seconds: Seconds = 2.0
    spool_quota_mebibytes: Annotated[int, msgspec.Meta(ge=1, le=1_048_576)] = 256
    labels: dict[str, str] = {}
    collector: CollectorConfig = CollectorConfig()
    sources: SourcesConfig = SourcesConfig()
    workloads: WorkloadsConfig = WorkloadsConfig()


def parse_config(text: str, *, origin: str = "agent.toml") -> AgentConfig:
    """Check a TOML text whole. Raises ConfigError, with `origin` as the place."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}. Mend that line.") from error
    _refuse_unknown_keys(tables, AgentConfig, "", origin)
    try:
        config = msgspec.convert(tables, AgentConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {error}. See the configuration table in README.md.") from error
    _check(config, origin)
    return config


def _refuse_unknown_keys(table: dict[str, Any], struct: type[msgspec.Struct], path: str, origin: str) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in table.items():
        if key not in fields:
            import difflib  # For this error alone.

            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.0)
            raise ConfigError(f"{origin}: unknown key `{path}{key}`. Did you mean `{path}{near[0]}`?")
        inner = _struct_of(fields[key])
        if inner is not None and isinstance(value, dict):
            _refuse_unknown_keys(value, inner, f"{path}{key}.", origin)


def _struct_of(field_type: Any) -> type[msgspec.Struct] | None:
    candidates = getattr(field_type, "__args__", ()) or (field_type,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None


def _check(config: AgentConfig, origin: str) -> None:
    collector = config.collector
    host, port = split_address(collector.address, origin)
    given = [bool(collector.ca_file), bool(collector.certificate_file), bool(collector.key_file)]
    if any(given) and not all(given):
        raise ConfigError(
            f"{origin}: mutual TLS needs `collector.ca_file`, `collector.certificate_file` and `collector.key_file`; "
            "give all three, or none."
        )
    if not any(given) and not collector.insecure and not is_loopback(host):
        raise ConfigError(
            f"{origin}: `collector.address` {host}:{port} is not loopback and no certificates are given. Give `ca_file`, "
            "`certificate_file` and `key_file`, or write `insecure = true` to send unencrypted."
        )
    _check_redfish(config.sources.redfish, origin)
    if config.flush_seconds < config.period_seconds:
        raise ConfigError(
            f"{origin}: `flush_seconds` {config.flush_seconds} is below `period_seconds` {config.period_seconds}; "
            "a record holds at least one sample, so make it as long or longer."
        )
    _check_curve(config.sources.estimate, origin)
    url = config.workloads.kubelet_url
    if url and not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:", "http://[::1]:")):
        raise ConfigError(
            f"{origin}: `workloads.kubelet_url` is `{url}`; write https://127.0.0.1:10250, or the kubelet's read-only port "
            "on this host, http://127.0.0.1:10255."
        )
    labels = {*config.labels, "hostname"}
    if len(labels) > LABELS_MAX:
        raise ConfigError(f"{origin}: {len(labels)} labels, `hostname` included, are too many; keep at most {LABELS_MAX}.")
    if config.sources.replay is not None and not config.host and not collector.uses_tls:
        raise ConfigError(
            f"{origin}: `sources.replay` needs `host`: the id under which the recorded machine stands in the ledger. "
            "A recording must not pass for this host."
        )
    for key, value in config.labels.items():
        if max(len(key), len(value)) > LABEL_CHARACTERS_MAX:
            raise ConfigError(f"{origin}: label `{key[:40]}` is longer than {LABEL_CHARACTERS_MAX} characters; shorten it.")
        if not (key + value).isprintable():
            raise ConfigError(f"{origin}: label {key[:40]!r} has control characters; write one line of plain text.")


def _check_curve(estimate: EstimateConfig, origin: str) -> None:
    points, band = estimate.curve_watts, estimate.curve_band
    name = "`sources.estimate.curve_watts`"
    if points and not 2 <= len(points) <= CURVE_POINTS_MAX:
        raise ConfigError(
            f"{origin}: {name} has {len(points)} points; give 2 to {CURVE_POINTS_MAX}, as [[0.0, 90.0], [1.0, 330.0]]."
        )
    if points and (points[0][0], points[-1][0]) != (0.0, 1.0):
        raise ConfigError(
            f"{origin}: {name} goes from load {points[0][0]:g} to {points[-1][0]:g}; "
            "state the power at load 0.0, which is idle, first and at 1.0, which is full, last."
        )
    for index, (load, watts) in enumerate(points):
        if not 0.0 < watts <= CURVE_WATTS_MAX:
            raise ConfigError(f"{origin}: {name}[{index}] has {watts:g} W; a machine that runs draws more than 0 W.")
        if index and not load > points[index - 1][0]:
            raise ConfigError(
                f"{origin}: {name}[{index}] has load {load:g}, which is not above {points[index - 1][0]:g} before it; "
                "sort the points by load, each load once."
            )
        if index and watts < points[index - 1][1]:
            raise ConfigError(
                f"{origin}: {name}[{index}] has {watts:g} W, less than {points[index - 1][1]:g} W at the load before it; "
                "power does not fall with load, so measure that point again."
            )
    if band and not points:
        raise ConfigError(f"{origin}: `sources.estimate.curve_band` is of no use without {name}; give both or none.")
    if band and not (len(band) == 2 and 0.0 <= band[0] < 1.0 and 0.0 <= band[1] <= CURVE_UPPER_RATIO_MAX):
        raise ConfigError(
            f"{origin}: `sources.estimate.curve_band` is {list(band)}; write how far below and above the truth may lie, "
            "as [0.1, 0.2] for -10 % to +20 %: below from 0 to less than 1, above 0 or more."
        )


def _check_redfish(redfish: RedfishConfig, origin: str) -> None:
    if not redfish.address:
        return
    scheme, _, rest = redfish.address.partition("://")
    host = rest.rstrip("/")
    if scheme not in ("https", "http") or not host or "/" in host or "@" in host:
        raise ConfigError(
            f"{origin}: `sources.redfish.address` is `{redfish.address}`; write it as https://host or https://host:port."
        )
    name = host.partition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]
    if scheme == "http" and not redfish.insecure and not is_loopback(name):
        raise ConfigError(
            f"{origin}: `sources.redfish.address` {redfish.address} would carry the password unencrypted. Write "
            "https://, or "
            "`insecure = true` beside it."
        )
    if bool(redfish.user) != bool(redfish.password_file):
        raise ConfigError(
            f"{origin}: `sources.redfish.user` and `sources.redfish.password_file` go together; give both, or neither."
        )


def split_address(address: str, origin: str) -> tuple[str, int]:
    """Split `host:port` (IPv6 in brackets). Raises ConfigError."""
    host, colon, port_text = address.rpartition(":")
    if not colon or not host or not port_text.isdecimal() or not 0 < int(port_text) < 65_536:
        raise ConfigError(f"{origin}: `collector.address` is `{address}`; write it as host:port, for example 10.0.0.5:9791.")
    return host.strip("[]"), int(port_text)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback, so that nobody else can listen in."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
