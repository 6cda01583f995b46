"""`doctor` on sensors: each fault is made in a copy of a fixture machine, and has its exact remedy."""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.agent.doctoring import USER, fault, faults, of_fixture, of_folder, of_machine, put, spoilt

from wattledger_agent.config import AgentConfig
from wattledger_agent.doctor_sensors import sensor_findings
from wattledger_agent.doctor_told import recognise
from wattledger_agent.inventory import Inventory, Missing, Roots
from wattledger_agent.machine import open_machine


def overlay(root: Path) -> None:
    """Let the machine's root be a container's."""
    put(root, "proc/self/mountinfo", "22 1 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/a\n")


def nvml(root: Path, change: Mapping[str, Any]) -> None:
    """Change what NVML answered for the system."""
    path = root / "nvml.json"
    recording = json.loads(path.read_text())
    recording["system"] |= change
    path.write_text(json.dumps(recording))


# Virtual machines.


def test_a_guest_of_qemu_can_be_given_virtual_rapl(tmp_path: Path) -> None:
    """By one option of its host's, which is named."""
    root = spoilt("kvm_guest", tmp_path)
    put(root, "sys/class/dmi/id/sys_vendor", "QEMU\n")

    finding = fault(of_folder(root), "qemu-without-rapl")

    assert finding.found == "this is a virtual machine of QEMU, which shows it no energy counter"
    assert finding.remedy == (
        "Start it with virtual RAPL (QEMU 9.1 or newer: -accel kvm,rapl=true,path=/run/qemu-vmsr-helper.sock), or run the "
        "agent on its host; until then its share of a server is estimated."
    )


def test_a_guest_of_another_hypervisor_is_named_with_it(tmp_path: Path) -> None:
    """There is no counter to be had inside."""
    root = spoilt("virtual_machine", tmp_path)
    put(root, "sys/class/dmi/id/sys_vendor", "VMware, Inc.\n")

    finding = fault(of_folder(root), "vm-without-sensors")

    assert finding.found == "this is a virtual machine of VMware, which shows it no energy counter"
    assert finding.remedy == (
        "For measured figures run the agent on the virtual machine's host; here the guest's share is estimated."
    )


def test_an_arm_guest_is_seen_by_its_firmware(tmp_path: Path) -> None:
    """Its processor has no flag that tells."""
    root = spoilt("ascend_910", tmp_path)
    put(root, "sys/class/dmi/id/sys_vendor", "QEMU\n")

    assert "qemu-without-rapl" in faults(of_folder(root))
    assert "qemu-without-rapl" not in faults(of_fixture("ascend_910", tmp_path))


def test_a_guest_with_virtual_rapl_is_metered_and_not_called_estimated(tmp_path: Path) -> None:
    """Its energy is what its hypervisor reckons."""
    findings = of_fixture("kvm_guest_virtual_rapl", tmp_path)

    (system,) = [finding for finding in findings if finding.check == "system"]
    assert system.verdict == "ok"
    assert "metered by the counters that it is shown" in system.found


# RAPL.


def test_counters_that_only_root_may_read_have_two_ways_to_be_opened(tmp_path: Path) -> None:
    """Root runs these tests, whom no file mode stops: the opener refuses."""
    played = open_machine(spoilt("xeon_two_sockets", tmp_path), tmp_path / "played")
    assert played.roots.played is not None
    played.roots.played.opener = refusing

    finding = fault(of_machine(played).findings, "rapl-permission")

    zone = tmp_path / "played/sys/class/powercap/intel-rapl:0/energy_uj"
    assert finding.found == f"{zone} may not be read by user id {USER}"
    assert finding.remedy == (
        "cp deploy/systemd/70-wattledger.rules /etc/udev/rules.d/ && udevadm control --reload && udevadm trigger "
        "--subsystem-match=powercap --action=add, and run the agent in the group wattledger; or write "
        "AmbientCapabilities=CAP_DAC_READ_SEARCH into its unit (systemctl edit wattledger-agent)."
    )


def test_a_masked_powercap_is_mounted_with_two_options(tmp_path: Path) -> None:
    """One of them alone gives links that point to nothing."""
    finding = fault(of_fixture("container_masked", tmp_path), "rapl-masked")

    assert finding.remedy == (
        "Mount both into the container: docker run -v /sys/class/powercap:/sys/class/powercap:ro "
        "-v /sys/devices/virtual/powercap:/sys/devices/virtual/powercap:ro; on Kubernetes two hostPath volumes."
    )


def test_a_dangling_link_among_good_ones_is_told_once(tmp_path: Path) -> None:
    """A package is not metered, though others are; it is no masked container."""
    finding = fault(of_fixture("powercap_dangling_symlink", tmp_path), "rapl-dangling")

    assert finding.found.endswith(
        "powercap/intel-rapl:1 points to nothing, while other zones are there; its package is not metered"
    )
    assert finding.remedy == (
        "On the host: modprobe -r intel_rapl_msr && modprobe intel_rapl_msr; in a container mount the whole of "
        "/sys/devices/virtual/powercap."
    )


def test_a_processor_with_rapl_and_no_driver_names_the_modules(tmp_path: Path) -> None:
    """As on a minimal image."""
    root = spoilt("xeon_two_sockets", tmp_path)
    shutil.rmtree(root / "sys/class/powercap")

    finding = fault(of_folder(root), "rapl-module")

    assert finding.remedy == (
        "modprobe -a intel_rapl_common intel_rapl_msr (for AMD too, since Linux 5.11) && echo intel_rapl_msr > "
        "/etc/modules-load.d/wattledger-rapl.conf"
    )


# hwmon.


def test_a_power_meter_of_the_firmware_without_a_driver_names_the_module(tmp_path: Path) -> None:
    """The firmware tells of it; Linux loads the module by itself on most machines, and not on all."""
    root = spoilt("xeon_two_sockets", tmp_path)
    put(root, "sys/bus/acpi/devices/ACPI000D:00/status", "15\n")

    finding = fault(of_folder(root), "acpi-meter-module")

    assert finding.found == "the firmware has a power meter (ACPI000D:00), but no driver shows it"
    assert finding.remedy == (
        "modprobe acpi_power_meter && echo acpi_power_meter > /etc/modules-load.d/wattledger-acpi.conf"
    )


def test_a_grace_whose_meters_are_refused_needs_an_option(tmp_path: Path) -> None:
    """Its firmware lacks what the driver wants of others."""
    root = spoilt("grace", tmp_path)
    shutil.rmtree(root / "sys/class/hwmon")
    put(root, "sys/bus/acpi/devices/ACPI000D:00/status", "15\n")

    assert fault(of_folder(root), "acpi-meter-grace").remedy == (
        "echo options acpi_power_meter force_cap_on=y > /etc/modprobe.d/wattledger-acpi.conf; modprobe -r acpi_power_meter; "
        "modprobe acpi_power_meter"
    )


def test_an_epyc_with_hsmp_and_no_driver_names_the_module(tmp_path: Path) -> None:
    """By both names that it had."""
    root = spoilt("epyc_genoa", tmp_path)
    shutil.rmtree(root / "sys/class/hwmon")
    put(root, "sys/bus/acpi/devices/AMDI0097:00/status", "15\n")

    assert fault(of_folder(root), "hsmp-module").remedy == (
        "modprobe hsmp_acpi (before Linux 6.13: modprobe amd_hsmp) && echo hsmp_acpi > "
        "/etc/modules-load.d/wattledger-hsmp.conf"
    )


def test_a_sensor_that_is_switched_off_has_the_command_that_switches_it_on(tmp_path: Path) -> None:
    """With the very file."""
    finding = fault(of_fixture("jetson_orin", tmp_path), "hwmon-switched-off")

    assert finding.found == (
        "in2_input (VDD_CPU_CV) of ina3221 at 1-0041 is switched off, and what its file shows is old or nothing"
    )
    assert finding.remedy.startswith("echo 1 > /")
    assert finding.remedy.endswith("/1-0041/hwmon/hwmon2/in2_enable")


def test_means_over_an_instant_have_the_command_that_lengthens_them(tmp_path: Path) -> None:
    """The default of NVIDIA Grace."""
    finding = fault(of_fixture("gh200", tmp_path), "hwmon-short-mean")

    assert finding.found == (
        "power1_average (Module Power Socket 0) of power_meter at ACPI000D:00 shows means over 50 ms; bursts between reads "
        "are missed"
    )
    assert finding.remedy.startswith("echo 1000 > /")
    assert finding.remedy.endswith("/ACPI000D:00/power1_average_interval")


# NVIDIA.


def test_a_driver_that_was_upgraded_and_not_reloaded_is_told(tmp_path: Path) -> None:
    """NVML_ERROR_LIB_RM_VERSION_MISMATCH, the morning after an unattended upgrade."""
    root = spoilt("dgx_h100", tmp_path)
    nvml(root, {"nvmlInit": {"error": 18}})

    assert fault(of_folder(root), "nvml-mismatch").remedy == (
        "Boot the host anew, or stop all programs on GPUs and run: rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && "
        "modprobe nvidia"
    )


def test_a_container_without_nvml_needs_the_runtime(tmp_path: Path) -> None:
    """The GPU is on its bus, and the library is not in it."""
    root = spoilt("dgx_h100", tmp_path)
    (root / "nvml.json").unlink()
    overlay(root)

    finding = fault(of_folder(root), "nvml-not-in-container")

    assert finding.found == "this container sees an NVIDIA GPU (0000:1b:00.0), but no NVML"
    assert finding.remedy == (
        "Run it with NVIDIA's runtime: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=utility; on Kubernetes "
        "runtimeClassName: nvidia"
    )


def test_a_host_without_nvml_needs_the_library(tmp_path: Path) -> None:
    """As where only the kernel's part was installed."""
    root = spoilt("dgx_h100", tmp_path)
    (root / "nvml.json").unlink()

    assert fault(of_folder(root), "nvml-missing").remedy == (
        "Install NVIDIA's driver with its library: apt-get install libnvidia-compute-<version>, or dnf install "
        "nvidia-driver-cuda-libs."
    )


def test_a_gpu_without_its_driver_names_the_module(tmp_path: Path) -> None:
    """NVML is there, and has nobody to talk to."""
    root = spoilt("dgx_h100", tmp_path)
    nvml(root, {"nvmlInit": {"error": 9}})

    assert fault(of_folder(root), "nvidia-module").remedy == "modprobe nvidia; if that fails, see dmesg | grep -i nvrm"


def test_secure_boot_that_keeps_the_driver_out_is_told(tmp_path: Path) -> None:
    """Then modprobe alone helps nobody."""
    root = spoilt("dgx_h100", tmp_path)
    nvml(root, {"nvmlInit": {"error": 9}})
    put(root, "sys/kernel/security/lockdown", "none [integrity] confidentiality\n")

    finding = fault(of_folder(root), "nvidia-module-unsigned")

    assert "(lockdown: integrity)" in finding.found
    assert finding.remedy == (
        "Sign the module and enrol its key: mokutil --import /var/lib/dkms/mok.pub, boot, and confirm; then modprobe nvidia"
    )


def test_nvml_without_permission_names_the_group(tmp_path: Path) -> None:
    """The device files are another group's."""
    root = spoilt("dgx_h100", tmp_path)
    nvml(root, {"nvmlInit": {"error": 4}})

    finding = fault(of_folder(root), "nvml-permission")

    assert finding.found == f"NVML lets user id {USER} in nowhere"
    assert finding.remedy == (
        "Write SupplementaryGroups=video into the agent's unit (systemctl edit wattledger-agent), or: chmod a+rw "
        "/dev/nvidiactl /dev/nvidia[0-9]*"
    )


def test_a_gpu_that_fell_off_the_bus_is_named(tmp_path: Path) -> None:
    """Between two reads of the look."""
    root = spoilt("dgx_h100", tmp_path)
    recording = json.loads((root / "nvml.json").read_text())
    gpu = recording["gpus"][0]
    for call in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues"):
        gpu[call] = {"series": [[0.0, gpu[call]], [0.2, {"error": 15}]]}
    (root / "nvml.json").write_text(json.dumps(recording))

    finding = fault(of_folder(root), "gpu-lost")

    uuid = gpu["nvmlDeviceGetUUID"]
    assert finding.found == f"gpu/{uuid} fell off the bus (NVML error 15)"
    assert finding.remedy == (
        f"nvidia-smi -r -i {uuid}; if it does not come back, boot the host anew and have it looked at (dmesg | grep Xid)."
    )
    assert finding.verdict == "failure"


def test_a_gpu_that_a_longer_look_calls_gone_is_the_same_fault() -> None:
    """The source says so after some reads."""
    told = recognise("nvidia", "gpu/GPU-1 fell off the bus (GPU is lost); reset it or boot the host anew")

    assert told is not None
    assert (told.id, told.found) == ("gpu-lost", "gpu/GPU-1 fell off the bus (GPU is lost)")


def test_a_gpu_that_can_t_be_opened_is_named_and_the_others_are_metered(tmp_path: Path) -> None:
    """One of eight."""
    root = spoilt("dgx_h100", tmp_path)
    recording = json.loads((root / "nvml.json").read_text())
    recording["gpus"][3]["nvmlDeviceGetUUID"] = {"error": 999}
    (root / "nvml.json").write_text(json.dumps(recording))

    finding = fault(of_folder(root), "gpu-not-opened")

    assert finding.found == "GPU number 3 can't be opened (NVML error 999), and is not metered"
    assert finding.remedy == "nvidia-smi -r, and if it stays: dmesg | grep -e NVRM -e Xid"


def test_a_gpu_that_sleeps_is_a_note_and_is_not_woken(tmp_path: Path) -> None:
    """To keep it awake is the operator's choice, and costs energy."""
    root = spoilt("gh200", tmp_path)
    (device,) = (root / "sys/devices/pci0009:00").glob("0009*")
    put(device, "power/control", "auto\n")
    put(device, "power/runtime_status", "suspended\n")
    put(root, "proc/driver/nvidia/gpus/0009:01:00.0/information", "Model: GH200\nGPU UUID: GPU-1\n")

    finding = fault(of_folder(root), "gpu-asleep")

    assert finding.verdict == "note"
    assert finding.found == "the GPU at 0009:01:00.0 sleeps and was not woken; it is metered when it is awake"
    assert finding.remedy == (
        "To have it awake for ever, which costs energy: echo on > /sys/bus/pci/devices/0009:01:00.0/power/control"
    )


def test_an_amd_gpu_without_its_driver_names_the_module(tmp_path: Path) -> None:
    """It is on the bus, and no chip of hwmon is its."""
    root = spoilt("mi300x", tmp_path)
    shutil.rmtree(root / "sys/class/hwmon")

    finding = fault(of_folder(root), "amdgpu-module")

    assert finding.found.startswith("no driver shows sensors of the AMD GPU at 0000:")
    assert finding.remedy == "modprobe amdgpu; a GPU that a guest has is metered there."


def test_two_sources_of_one_module_that_disagree_are_told(tmp_path: Path) -> None:
    """One of them shows twice what the other does."""
    root = spoilt("gh200", tmp_path)
    power = root / "sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00/power1_average"
    power.write_text(f"{2 * int(power.read_text())}\n")

    finding = fault(of_folder(root), "sources-disagree")

    assert finding.found == "module/0: nvidia module shows -50% beside hwmon module, which is booked"
    assert finding.remedy == (
        "Look at both over minutes in wattledger_cross_check_disagreement_ratio; if it stays, switch the wrong one off: "
        "`sources.nvidia.enabled = false`, or that of hwmon."
    )


# The period, and what no rule knows.


def test_a_period_above_a_quarter_of_the_shortest_wrap_is_told(tmp_path: Path) -> None:
    """With the longest one that is safe."""
    played = open_machine(spoilt("epyc_genoa", tmp_path), tmp_path / "played")
    risky = of_machine(played, AgentConfig(period_seconds=20.0, flush_seconds=20.0, sources=played.config.sources))

    finding = fault(risky.findings, "period-risky")

    assert finding.found.endswith(": a few failed reads leave a gap")
    assert finding.remedy == "Set `period_seconds` to at most 16.4."


def test_a_period_above_a_whole_wrap_is_a_failure(tmp_path: Path) -> None:
    """Nothing could be booked, and all would look well."""
    played = open_machine(spoilt("epyc_genoa", tmp_path), tmp_path / "played")
    hopeless = of_machine(played, AgentConfig(period_seconds=70.0, flush_seconds=70.0, sources=played.config.sources))

    finding = fault(hopeless.findings, "period-hopeless")

    assert (finding.verdict, finding.remedy) == ("failure", "Set `period_seconds` to at most 16.4.")


def test_a_source_that_fails_in_its_own_way_is_told_in_its_own_words(tmp_path: Path) -> None:
    """A driver's binding that is broken: no rule knows it, and nothing is lost."""
    missing = Missing("redfish", "redfish: it can't be opened: KeyError: 'x'.", "Mend its driver.")

    finding = fault(
        sensor_findings(AgentConfig(), Roots(tmp_path, tmp_path), Inventory([], [missing]), None), "source-unavailable"
    )

    assert (finding.check, finding.verdict) == ("redfish", "warning")
    assert (finding.found, finding.remedy) == ("it can't be opened: KeyError: 'x'.", "Mend its driver.")


def refusing(path: Path) -> int:
    """Opens what anybody may read, and no energy counter."""
    if path.name == "energy_uj":
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
