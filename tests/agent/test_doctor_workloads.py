"""`doctor` on energy by workload: control groups, namespaces, limits and the kubelet; each fault has its exact remedy."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.agent.doctoring import fault, faults, of_fixture, of_machine, spoilt

from wattledger_agent.config import AgentConfig, WorkloadsConfig
from wattledger_agent.doctor import Finding
from wattledger_agent.doctor_sensors import explain_workloads
from wattledger_agent.doctor_workloads import kubelet_findings
from wattledger_agent.kubelet import https_fetch
from wattledger_agent.machine import open_machine

GROUPS = "sys/fs/cgroup"


def of_folder(root: Path, workloads: WorkloadsConfig | None = None) -> list[Finding]:
    """What doctor says of a machine's folder under these settings."""
    played = open_machine(root, root.parent / f"{root.name}-played")
    config = AgentConfig(sources=played.config.sources, workloads=WorkloadsConfig() if workloads is None else workloads)
    return of_machine(played, config).findings


def workload_faults(findings: list[Finding]) -> set[str]:
    """The faults of workloads."""
    return faults(finding for finding in findings if finding.check == "workloads")


def test_a_machine_with_pods_in_order_has_no_fault(tmp_path: Path) -> None:
    """The same machine that the faults below are made of."""
    assert workload_faults(of_fixture("kubernetes_cgroup_v2", tmp_path)) == set()


def test_a_host_without_groups_is_told(tmp_path: Path) -> None:
    """Neither hierarchy is mounted where they are looked for."""
    root = spoilt("kubernetes_cgroup_v2", tmp_path)
    shutil.rmtree(root / GROUPS)

    finding = fault(of_folder(root), "cgroup-missing")

    path = f"{tmp_path}/kubernetes_cgroup_v2-spoilt-played/{GROUPS}"
    assert finding.remedy == f"mount -t cgroup2 none {path}; in a container: docker run -v /sys/fs/cgroup:/sys/fs/cgroup:ro"


def test_a_container_that_sees_its_own_groups_alone_is_told(tmp_path: Path) -> None:
    """A group that is not the root has events."""
    root = spoilt("kubernetes_cgroup_v2", tmp_path)
    (root / GROUPS / "cgroup.events").write_text("populated 1\n")

    finding = fault(of_folder(root), "cgroup-namespace")

    assert finding.found.endswith(f"/{GROUPS} shows only this container's groups")
    assert finding.remedy == (
        "docker run --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:ro; on Kubernetes a hostPath volume of /sys/fs/cgroup"
    )


def test_reservations_without_the_cpu_controller_are_told(tmp_path: Path) -> None:
    """CPU time itself needs no controller: with another policy it is no fault."""
    root = spoilt("kubernetes_cgroup_v2", tmp_path)
    (root / GROUPS / "cgroup.subtree_control").write_text("memory pids\n")

    finding = fault(of_folder(root, WorkloadsConfig(idle_policy="by-reservation")), "cgroup-without-cpu")

    path = f"{tmp_path}/kubernetes_cgroup_v2-spoilt-played/{GROUPS}"
    assert finding.remedy == (
        f"echo +cpu > {path}/cgroup.subtree_control (it needs cgroup_disable=cpu gone from the kernel's command line), or "
        'write idle_policy = "by-usage".'
    )
    shutil.rmtree(tmp_path / "kubernetes_cgroup_v2-spoilt-played")
    assert "cgroup-without-cpu" not in faults(of_folder(root))


def test_memory_without_its_controller_is_told(tmp_path: Path) -> None:
    """As on boards whose kernels leave it off."""
    root = spoilt("kubernetes_cgroup_v2", tmp_path)
    (root / GROUPS / "cgroup.subtree_control").write_text("cpu pids\n")

    finding = fault(of_folder(root, WorkloadsConfig(memory=True)), "cgroup-without-memory")

    path = f"{tmp_path}/kubernetes_cgroup_v2-spoilt-played/{GROUPS}"
    assert finding.remedy == (
        f"echo +memory > {path}/cgroup.subtree_control (on some boards boot with cgroup_enable=memory), or write memory = "
        "false."
    )


def test_another_pid_namespace_is_told(tmp_path: Path) -> None:
    """NVML tells the host's numbers of processes."""
    root = spoilt("kubernetes_cgroup_v2", tmp_path)
    (root / "proc/self/ns").mkdir(parents=True)
    (root / "proc/self/status").write_text("Name:\tagent\nNSpid:\t1\n")
    (root / "proc/self/ns/pid").symlink_to("pid:[4026532001]")

    assert fault(of_folder(root), "pid-namespace").remedy == (
        "docker run --pid=host; on Kubernetes hostPID: true; or give the host's /proc with --procfs-root."
    )


def test_a_proc_that_hides_processes_is_told(tmp_path: Path) -> None:
    """By the option that it is mounted with; a hardened unit's ProtectProc is one."""
    root = spoilt("kubernetes_cgroup_v2", tmp_path)
    (root / "proc/self").mkdir()
    (root / "proc/self/mountinfo").write_text("25 1 0:24 / /proc rw,nosuid - proc proc rw,hidepid=invisible\n")

    finding = fault(of_folder(root), "processes-hidden")

    assert finding.found == ("/proc is mounted with hidepid=invisible, so that processes on GPUs can't be told apart")
    assert finding.remedy == (
        "ProtectProc=default in the agent's unit (systemctl edit wattledger-agent), or: mount -o remount,hidepid=0 /proc"
    )


def test_processes_that_were_looked_for_in_vain_are_the_same_fault() -> None:
    """The source says so after some time, whatever hides them."""
    told = explain_workloads("no process on a GPU can be seen in /proc, so that GPUs' energy is unattributed: set ...")

    assert told is not None
    assert (told.id, told.found) == (
        "processes-hidden",
        "/proc is mounted with hidepid, so that processes on GPUs can't be told apart",
    )


def test_too_few_files_for_the_groups_are_told_with_the_number_that_is_enough(tmp_path: Path) -> None:
    """A process that may have four more files than it needs by itself: the other groups are opened for each read."""
    root = spoilt("kubernetes_cgroup_v2", tmp_path)
    command = [sys.executable, "-m", "wattledger_agent.cli", "doctor", "--json", "--sysfs-root", str(root / "sys")]
    (root / "agent.toml").write_text(f'state_dir = "{tmp_path}/state"\n')
    command += ["--procfs-root", str(root / "proc"), "--config", str(root / "agent.toml")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (260, 260)),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )

    finding = next(one for one in json.loads(done.stdout)["findings"] if one["id"] == "few-files")
    assert finding["found"].endswith("groups are opened for each read, since no more than 260 files may stay open")
    assert finding["remedy"] == (
        "LimitNOFILE=512 in the agent's unit (systemctl edit wattledger-agent); in a shell: ulimit -n 512"
    )


@contextmanager
def kubelet(status: int) -> Iterator[str]:
    """A kubelet on this host that answers with a status; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b'{"items": []}')

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(url: str) -> list[Finding]:
    """What is said of a kubelet."""
    return list(kubelet_findings(WorkloadsConfig(kubelet_url=url), https_fetch(url, "", "")))


def test_a_kubelet_that_refuses_the_token_has_the_role_to_make() -> None:
    """Reading pods needs one permission."""
    with kubelet(403) as url:
        finding = fault(ask(url), "kubelet-forbidden")

    assert finding.found == f"the kubelet at {url} refuses the agent's token (HTTP 403); pods are shown by their uids"
    assert finding.remedy == (
        "kubectl create clusterrole wattledger-agent --verb=get --resource=nodes/pods && kubectl create clusterrolebinding "
        "wattledger-agent --clusterrole=wattledger-agent --serviceaccount=<namespace>:<account>"
    )


def test_a_kubelet_that_is_not_there_is_told() -> None:
    """Pods keep their uids."""
    with kubelet(200) as url:
        assert ask(url) == [Finding("workloads", "ok", f"the kubelet at {url} tells the names of its pods")]

    finding = fault(ask(url), "kubelet-silent")

    assert "Connection refused" in finding.found
    assert finding.remedy == (
        f"Check `workloads.kubelet_url`, `kubelet_token_file` and `kubelet_ca_file` with: curl -k {url}/healthz"
    )
