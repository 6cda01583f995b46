"""Everything that `wattledger-agent doctor` knows to be wrong, as data: what is found, and the exact thing to do about it.

Looks at nothing. The README's table "What doctor finds" is made of this; words in braces are filled in by who looked.
"""

from dataclasses import dataclass
from typing import Literal

# A note is nothing to mend.
Verdict = Literal["ok", "note", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. remedy: empty if all is well. id: that of the fault; empty if it is none."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that may be wrong on a host. what, remedy: a sentence each, with places for facts in braces."""

    id: str
    check: str
    verdict: Verdict
    what: str
    remedy: str

    def finding(self, **facts: object) -> Finding:
        """Return the finding for this host. Raises KeyError if a fact is missing."""
        return Finding(self.check, self.verdict, self.what.format(**facts), self.remedy.format(**facts), self.id)


_ISSUE = (
    "issue it anew where the authority is: openssl req -x509 -CA ca.pem -CAkey ca.key -newkey ec -pkeyopt "
    "ec_paramgen_curve:P-256 -noenc -days 365 -subj /CN={host} -addext basicConstraints=critical,CA:FALSE -addext "
    "extendedKeyUsage=clientAuth -addext subjectAltName=URI:wattledger://host/{host} -keyout host.key -out host.pem"
)

_ALL = (
    # The machine.
    Fault(
        "qemu-without-rapl", "system", "warning",
        "this is a virtual machine of {hypervisor}, which shows it no energy counter",
        "Start it with virtual RAPL (QEMU 9.1 or newer: -accel kvm,rapl=true,path=/run/qemu-vmsr-helper.sock), or run the "
        "agent on its host; until then its share of a server is estimated.",
    ),
    Fault(
        "vm-without-sensors", "system", "warning",
        "this is a virtual machine of {hypervisor}, which shows it no energy counter",
        "For measured figures run the agent on the virtual machine's host; here the guest's share is estimated.",
    ),
    Fault(
        "no-source", "sources", "failure",
        "nothing can be metered",
        "Follow a remedy above, or enable `sources.estimate`.",
    ),
    Fault(
        "source-unavailable", "sources", "warning",
        "{reason}",
        "{remedy}",
    ),
    Fault(
        "source-left-out", "sources", "warning",
        "{source} was left out: {reason}",
        "Look for a hung driver with dmesg -T | tail -50; a running agent reads it as soon as it answers.",
    ),
    Fault(
        "sources-disagree", "sources", "warning",
        "{device}: {source} {domain} shows {ratio} beside {reference_source} {reference_domain}, which is booked",
        "Look at both over minutes in wattledger_cross_check_disagreement_ratio; if it stays, switch the wrong one off: "
        "`sources.{source}.enabled = false`, or that of {reference_source}.",
    ),
    # RAPL.
    Fault(
        "rapl-permission", "rapl", "warning",
        "{path} may not be read by user id {user}",
        "cp deploy/systemd/70-wattledger.rules /etc/udev/rules.d/ && udevadm control --reload && udevadm trigger "
        "--subsystem-match=powercap --action=add, and run the agent in the group wattledger; or write "
        "AmbientCapabilities=CAP_DAC_READ_SEARCH into its unit (systemctl edit wattledger-agent).",
    ),
    Fault(
        "rapl-masked", "rapl", "warning",
        "{path} points to nothing: the container's runtime masks /sys/devices/virtual/powercap",
        "Mount both into the container: docker run -v /sys/class/powercap:/sys/class/powercap:ro "
        "-v /sys/devices/virtual/powercap:/sys/devices/virtual/powercap:ro; on Kubernetes two hostPath volumes.",
    ),
    Fault(
        "rapl-dangling", "rapl", "warning",
        "{path} points to nothing, while other zones are there; its package is not metered",
        "On the host: modprobe -r intel_rapl_msr && modprobe intel_rapl_msr; in a container mount the whole of "
        "/sys/devices/virtual/powercap.",
    ),
    Fault(
        "rapl-module", "rapl", "warning",
        "the processor has RAPL, but {path} shows no zone of it",
        "modprobe -a intel_rapl_common intel_rapl_msr (for AMD too, since Linux 5.11) && echo intel_rapl_msr > "
        "/etc/modules-load.d/wattledger-rapl.conf",
    ),
    Fault(
        "estimate-over-sensor", "estimate", "warning",
        "power is MODELLED although {sensors} is there and can't be used",
        "Follow the remedy of {sensors}; what it measures then takes the estimate's place by itself.",
    ),
    Fault(
        "only-estimate", "estimate", "warning",
        "power is MODELLED: no sensor measures this host's CPUs",
        "See the remedies of the sources that were not found, or state the machine's own curve in "
        "`sources.estimate.curve_watts`.",
    ),
    # hwmon.
    Fault(
        "acpi-meter-module", "hwmon", "warning",
        "the firmware has a power meter ({device}), but no driver shows it",
        "modprobe acpi_power_meter && echo acpi_power_meter > /etc/modules-load.d/wattledger-acpi.conf",
    ),
    Fault(
        "acpi-meter-grace", "hwmon", "warning",
        "the power meters of this NVIDIA Grace ({device}) are not shown: the driver is missing, or refuses them",
        "echo options acpi_power_meter force_cap_on=y > /etc/modprobe.d/wattledger-acpi.conf; modprobe -r acpi_power_meter; "
        "modprobe acpi_power_meter",
    ),
    Fault(
        "hsmp-module", "hwmon", "warning",
        "the firmware offers HSMP ({device}), but no driver shows it",
        "modprobe hsmp_acpi (before Linux 6.13: modprobe amd_hsmp) && echo hsmp_acpi > "
        "/etc/modules-load.d/wattledger-hsmp.conf",
    ),
    Fault(
        "hwmon-switched-off", "hwmon", "warning",
        "{sensor} is switched off, and what its file shows is old or nothing",
        "echo 1 > {path}",
    ),
    Fault(
        "hwmon-short-mean", "hwmon", "warning",
        "{sensor} shows means over {window}; bursts between reads are missed",
        "echo 1000 > {path}",
    ),
    # GPUs.
    Fault(
        "nvml-mismatch", "nvidia", "warning",
        "NVML and the kernel's driver are of different versions: the driver was upgraded but not reloaded",
        "Boot the host anew, or stop all programs on GPUs and run: rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && "
        "modprobe nvidia",
    ),
    Fault(
        "nvml-not-in-container", "nvidia", "warning",
        "this container sees an NVIDIA GPU ({device}), but no NVML",
        "Run it with NVIDIA's runtime: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=utility; on Kubernetes "
        "runtimeClassName: nvidia",
    ),
    Fault(
        "nvml-missing", "nvidia", "warning",
        "there is an NVIDIA GPU ({device}), but no NVML (libnvidia-ml.so.1)",
        "Install NVIDIA's driver with its library: apt-get install libnvidia-compute-<version>, or dnf install "
        "nvidia-driver-cuda-libs.",
    ),
    Fault(
        "nvidia-module", "nvidia", "warning",
        "there is an NVIDIA GPU, but its driver is not loaded",
        "modprobe nvidia; if that fails, see dmesg | grep -i nvrm",
    ),
    Fault(
        "nvidia-module-unsigned", "nvidia", "warning",
        "there is an NVIDIA GPU, and Secure Boot (lockdown: {lockdown}) lets no unsigned driver be loaded",
        "Sign the module and enrol its key: mokutil --import /var/lib/dkms/mok.pub, boot, and confirm; then modprobe nvidia",
    ),
    Fault(
        "nvml-permission", "nvidia", "warning",
        "NVML lets user id {user} in nowhere",
        "Write SupplementaryGroups=video into the agent's unit (systemctl edit wattledger-agent), or: chmod a+rw "
        "/dev/nvidiactl /dev/nvidia[0-9]*",
    ),
    Fault(
        "gpu-lost", "nvidia", "failure",
        "gpu/{uuid} fell off the bus ({error})",
        "nvidia-smi -r -i {uuid}; if it does not come back, boot the host anew and have it looked at (dmesg | grep Xid).",
    ),
    Fault(
        "gpu-not-opened", "nvidia", "warning",
        "{device} can't be opened ({error}), and is not metered",
        "nvidia-smi -r, and if it stays: dmesg | grep -e NVRM -e Xid",
    ),
    Fault(
        "gpu-asleep", "nvidia", "note",
        "{device} sleeps and was not woken; it is metered when it is awake",
        "To have it awake for ever, which costs energy: echo on > /sys/bus/pci/devices/{address}/power/control",
    ),
    Fault(
        "amdgpu-module", "amd_gpu", "warning",
        "no driver shows sensors of the AMD GPU at {address}",
        "modprobe amdgpu; a GPU that a guest has is metered there.",
    ),
    # Management controllers.
    Fault(
        "ipmi-module", "ipmi", "warning",
        "the firmware tells of a management controller ({device}), but {path} does not exist",
        "modprobe -a ipmi_si ipmi_devintf && printf 'ipmi_si\\nipmi_devintf\\n' > /etc/modules-load.d/wattledger-ipmi.conf; "
        "in a container: docker run --device /dev/ipmi0",
    ),
    Fault(
        "ipmi-permission", "ipmi", "warning",
        "{path} may not be opened by user id {user}",
        "echo 'KERNEL==\"ipmi*\", GROUP=\"wattledger\", MODE=\"0660\"' > /etc/udev/rules.d/71-wattledger-ipmi.rules && "
        "udevadm control --reload && udevadm trigger; whoever may open it may also configure the controller.",
    ),
    Fault(
        "ipmi-tool", "ipmi", "warning",
        "there is a management controller ({device}), but no program to ask it: {programs} are not installed",
        "apt-get install ipmitool, or dnf install ipmitool",
    ),
    Fault(
        "ipmi-deactivated", "ipmi", "warning",
        "the controller calls its power reading `{state}`",
        "ipmitool dcmi power activate; if it stays, switch power monitoring on in the controller's settings, or update its "
        "firmware.",
    ),
    Fault(
        "ipmi-without-dcmi", "ipmi", "warning",
        "this controller has no DCMI power reading",
        "Read it by Redfish (`sources.redfish.address`), or switch this source off: `sources.ipmi.enabled = false`",
    ),
    Fault(
        "ipmi-silent", "ipmi", "warning",
        "the controller does not answer: {reason}",
        "ipmitool mc info; if that hangs too: ipmitool mc reset cold (the host goes on meanwhile).",
    ),
    Fault(
        "redfish-certificate", "redfish", "warning",
        "the certificate of {address} is not trusted ({reason})",
        "Write the PEM file of the authority that signed it into `sources.redfish.ca_file`, or the name that is in it into "
        "`sources.redfish.address`.",
    ),
    Fault(
        "redfish-silent", "redfish", "warning",
        "{address} {reason}",
        "curl -k {address}/redfish/v1 from this host; mend `sources.redfish.address` or the firewall, or restart the "
        "controller.",
    ),
    Fault(
        "redfish-name", "redfish", "warning",
        "the name in {address} can't be resolved ({reason})",
        "Mend `sources.redfish.address`, or this host's DNS.",
    ),
    Fault(
        "redfish-credentials", "redfish", "warning",
        "{address} refuses user `{user}` (HTTP {status})",
        "Mend `sources.redfish.user` and its password file, and restart the agent: wrong ones are tried again after 15 "
        "minutes, so as not to lock the account.",
    ),
    Fault(
        "redfish-password", "redfish", "warning",
        "the password file {path} can't be read ({reason})",
        "chown wattledger {path} && chmod 0400 {path}; or write LoadCredential=<name>:{path} into the agent's unit, and the "
        "name into `sources.redfish.password_file`.",
    ),
    Fault(
        "redfish-password-open", "redfish", "warning",
        "the password file {path} can be read by everybody (mode {mode})",
        "chmod 0400 {path}, and change the password: others may know it.",
    ),
    # Time.
    Fault(
        "boot-id", "clock", "failure",
        "cannot read the boot id at {reason}",
        "The agent needs Linux with procfs; in a container mount it and name its place with --procfs-root.",
    ),
    Fault(
        "clock-unsynchronised", "clock", "warning",
        "not synchronised: the collector's clock dates this host's energy",
        "systemctl enable --now systemd-timesyncd, or: systemctl enable --now chronyd",
    ),
    Fault(
        "clock-before-spool", "clock", "warning",
        "the clock says {now}, but the spool was written at {written}: it was set back",
        "timedatectl set-ntp true, and compare with: chronyc tracking",
    ),
    Fault(
        "rtc-off", "clock", "warning",
        "the hardware clock is {seconds} s off the system's, so that the next boot begins with a wrong time",
        "hwclock --systohc",
    ),
    Fault(
        "period-hopeless", "period", "failure",
        "{found}: no reading could be booked",
        "Set `period_seconds` to at most {seconds}.",
    ),
    Fault(
        "period-risky", "period", "warning",
        "{found}: a few failed reads leave a gap",
        "Set `period_seconds` to at most {seconds}.",
    ),
    # The spool.
    Fault(
        "machine-id", "identity", "warning",
        "/etc/machine-id is missing: a copied disk can't be told from its original",
        "systemd-machine-id-setup",
    ),
    Fault(
        "state-is-file", "spool", "failure",
        "{path} is a file, no folder",
        "Move it away, or set `state_dir` to another folder.",
    ),
    Fault(
        "state-unwritable", "spool", "failure",
        "cannot write to {path}: {reason}",
        "Let user id {user} write there, or set `state_dir` to another folder.",
    ),
    Fault(
        "state-read-only", "spool", "failure",
        "{path} is on a file system that is mounted read-only",
        "mount -o remount,rw {mount}, or set `state_dir` to another folder.",
    ),
    Fault(
        "state-volatile", "spool", "warning",
        "{path} is on {kind}: the spool, and what it has not delivered, are lost at each boot",
        "Set `state_dir` to a folder on a disk, such as /var/lib/wattledger-agent; in a container mount a volume there.",
    ),
    Fault(
        "disk-full", "spool", "warning",
        "{free} MiB free at {path}",
        "Make room: a full disk costs time resolution first, and then the oldest records.",
    ),
    Fault(
        "quota-over-disk", "spool", "warning",
        "`spool_quota_mebibytes` is {quota}, but {path} has {room} MiB for it",
        "Set `spool_quota_mebibytes` to at most {room}, or make room.",
    ),
    Fault(
        "spool-locked", "spool", "warning",
        "process {process} ({command}) holds {path}, so that no other agent can use it",
        "If it is not the agent that you want: kill {process}; a second agent needs a `state_dir` of its own.",
    ),
    Fault(
        "meter-silent", "spool", "warning",
        "{device} is metered by {source}, which has told nothing for five minutes or more: a gap stands for what it used",
        "Follow the remedy of {source} above; where there is none, restart what {source} asks (a management controller: "
        "ipmitool mc reset cold). If it is gone for good, take it out of `sources.{source}`.",
    ),
    Fault(
        "spool-foreign", "spool", "warning",
        "{path} was written on another machine ({theirs}; this one is {ours}), so that it will be set aside unsent",
        "After copying a disk: rm -r {path} on the copy. After a new mainboard nothing is to be done.",
    ),
    # Certificates.
    Fault(
        "stream-unencrypted", "certificates", "warning",
        "the stream to {address} is NOT ENCRYPTED (insecure = true)",
        "Give `ca_file`, `certificate_file` and `key_file` under [collector].",
    ),
    Fault(
        "certificate-unreadable", "certificates", "failure",
        "cannot read {path}: {reason}",
        "Put it there, or let user id {user} read it.",
    ),
    Fault(
        "ca-not-pem", "certificates", "failure",
        "{path} holds no certificate",
        "Give the authority's certificate as PEM (-----BEGIN CERTIFICATE).",
    ),
    Fault(
        "key-mismatch", "certificates", "failure",
        "{certificate} and {key} are no certificate with its key",
        "Give two PEM files that were made together, the key without a password.",
    ),
    Fault(
        "certificate-expired", "certificates", "failure",
        "{path} expired at {until}",
        f"{_ISSUE}; put both in the old ones' place, without a restart.",
    ),
    Fault(
        "certificate-early", "certificates", "failure",
        "{path} is valid from {since} on, and this host's clock says {now}",
        "Set the clock: timedatectl set-ntp true; if it is right, issue the certificate anew.",
    ),
    Fault(
        "certificate-expiring", "certificates", "warning",
        "{path} expires in {days} days, at {until}",
        f"Before then {_ISSUE}; put both in the old ones' place, without a restart.",
    ),
    Fault(
        "certificate-nameless", "certificates", "failure",
        "{path} names no host (no subject alternative name), so that the collector can't tell whose energy it is",
        _ISSUE,
    ),
    Fault(
        "certificate-other-host", "certificates", "warning",
        "`host` is {host}, but {path} is for {names}, and the certificate counts",
        'Write `host = "{first}"`, or issue a certificate for {host}.',
    ),
    Fault(
        "certificate-other-ca", "certificates", "warning",
        "{path} was not signed by the authority in {ca}, which signs the collector's",
        "Have the same authority sign both, unless the collector trusts another for its agents.",
    ),
    Fault(
        "key-open", "certificates", "warning",
        "the key {path} can be read by everybody (mode {mode})",
        "chmod 0640 {path}, and issue the certificate anew: others may have copied the key.",
    ),
    # The collector.
    Fault(
        "collector-name-impossible", "collector", "failure",
        "{host} is no host name: a part of it is empty or too long",
        "Correct the name in `collector.address`.",
    ),
    Fault(
        "collector-name-unknown", "collector", "warning",
        "{address} does not answer: {reason}",
        "Correct the name in `collector.address`, or this host's DNS. Until then the spool keeps everything.",
    ),
    Fault(
        "collector-refused", "collector", "warning",
        "{address} does not answer: {reason}",
        "Start the collector, or correct the port in `collector.address`. Until then the spool keeps everything.",
    ),
    Fault(
        "collector-silent", "collector", "warning",
        "{address} does not answer: {reason}",
        "Correct `collector.address`, or open the firewall for it. Until then the spool keeps everything.",
    ),
    Fault(
        "collector-untrusted", "collector", "warning",
        "{address} does not answer: its certificate is not accepted ({reason})",
        "Give the authority that signed it as `ca_file`. Until then the spool keeps everything.",
    ),
    Fault(
        "collector-other-name", "collector", "warning",
        "{address} does not answer: its certificate is not accepted ({reason})",
        "Give the name that is in it as `server_name`, or as host in `collector.address`. Until then the spool keeps "
        "everything.",
    ),
    Fault(
        "certificate-refused", "collector", "warning",
        "{address} does not answer: it does not accept this agent's certificate",
        "Have the authority that the collector trusts sign this agent's certificate, and look at its dates. Until then the "
        "spool keeps everything.",
    ),
    Fault(
        "collector-without-tls", "collector", "warning",
        "{address} does not answer: TLS failed ({reason})",
        "Use TLS on both sides, and the collector's gRPC port in `collector.address`. Until then the spool keeps "
        "everything.",
    ),
    Fault(
        "collector-wants-tls", "collector", "warning",
        "{address} expects TLS, and this agent speaks without it",
        "Give `ca_file`, `certificate_file` and `key_file` under [collector]. Until then the spool keeps everything.",
    ),
    Fault(
        "collector-refuses-host", "collector", "failure",
        "the running agent is refused: {refusal}",
        "If another machine has this id, as after a copied disk: on the copy systemctl stop wattledger-agent && rm -r "
        "{path}/spool {path}/host-id, and give it a certificate or `host` of its own; if this one took another's place: "
        "wattledger-collector host replace <host> <successor>.",
    ),
    Fault(
        "collector-clock", "clock", "warning",
        "the collector's clock is {seconds} s from this one",
        "chronyc tracking (or timedatectl timesync-status) on both; where they trust no common server, write the same one "
        "into /etc/chrony/chrony.conf.",
    ),
    Fault(
        "collector-no-grpc", "collector", "warning",
        "{address} answers, but not as a collector's gRPC port does",
        "Write the collector's gRPC port (9791 if it was not changed) into `collector.address`. Until then the spool keeps "
        "everything.",
    ),
    # Workloads.
    Fault(
        "cgroup-missing", "workloads", "warning",
        "{path} holds neither the unified hierarchy nor cpuacct, so that no energy is told by workload",
        "mount -t cgroup2 none {path}; in a container: docker run -v /sys/fs/cgroup:/sys/fs/cgroup:ro",
    ),
    Fault(
        "cgroup-namespace", "workloads", "warning",
        "{path} shows only this container's groups",
        "docker run --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:ro; on Kubernetes a hostPath volume of /sys/fs/cgroup",
    ),
    Fault(
        "cgroup-without-cpu", "workloads", "warning",
        "the cpu controller is not switched on in {path}, and idle_policy = by-reservation needs its weights",
        "echo +cpu > {path}/cgroup.subtree_control (it needs cgroup_disable=cpu gone from the kernel's command line), or "
        'write idle_policy = "by-usage".',
    ),
    Fault(
        "cgroup-without-memory", "workloads", "warning",
        "the memory controller is not switched on in {path}, and `workloads.memory` needs it",
        "echo +memory > {path}/cgroup.subtree_control (on some boards boot with cgroup_enable=memory), or write memory = "
        "false.",
    ),
    Fault(
        "pid-namespace", "workloads", "warning",
        "this is another PID namespace than the host's, so that processes on GPUs can't be told apart",
        "docker run --pid=host; on Kubernetes hostPID: true; or give the host's /proc with --procfs-root.",
    ),
    Fault(
        "processes-hidden", "workloads", "warning",
        "{path} is mounted with {option}, so that processes on GPUs can't be told apart",
        "ProtectProc=default in the agent's unit (systemctl edit wattledger-agent), or: mount -o remount,hidepid=0 {path}",
    ),
    Fault(
        "kubelet-forbidden", "workloads", "warning",
        "the kubelet at {url} refuses the agent's token (HTTP {status}); pods are shown by their uids",
        "kubectl create clusterrole wattledger-agent --verb=get --resource=nodes/pods && kubectl create clusterrolebinding "
        "wattledger-agent --clusterrole=wattledger-agent --serviceaccount=<namespace>:<account>",
    ),
    Fault(
        "kubelet-silent", "workloads", "warning",
        "the kubelet at {url} did not tell the names of its pods ({reason}); they are shown by their uids",
        "Check `workloads.kubelet_url`, `kubelet_token_file` and `kubelet_ca_file` with: curl -k {url}/healthz",
    ),
    Fault(
        "few-files", "workloads", "warning",
        "{groups} groups are opened for each read, since no more than {limit} files may stay open",
        "LimitNOFILE={wanted} in the agent's unit (systemctl edit wattledger-agent); in a shell: ulimit -n {wanted}",
    ),
)  # fmt: skip

FAULTS = {fault.id: fault for fault in _ALL}
