"""deploy/kubernetes/agent.yaml: what it lets the agent do, and that its parts and the agent's own words fit together.

No cluster runs here. It is held to the rules of the Kubernetes API (PodSpec, RBAC) and to the agent's options.
"""

import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.promql import DEPLOY

from wattledger_agent.config import AgentConfig, parse_config
from wattledger_agent.doctor_faults import FAULTS
from wattledger_agent.kubelet import KubeletNames

MANIFEST = DEPLOY / "kubernetes" / "agent.yaml"
NODE = {"NODE_NAME": "node-7", "HOST_IP": "192.0.2.7"}


def documents() -> dict[str, Any]:
    """The manifest's objects by kind; there is one of each."""
    trees = list(yaml.safe_load_all(MANIFEST.read_text()))
    assert len({tree["kind"] for tree in trees}) == len(trees)
    return {tree["kind"]: tree for tree in trees}


def pod() -> Any:
    """The DaemonSet's PodSpec."""
    return documents()["DaemonSet"]["spec"]["template"]["spec"]


def agent() -> Any:
    """The agent's container."""
    (container,) = pod()["containers"]
    return container


def mounts(container: Any) -> dict[str, Any]:
    """A container's mounts by their place in it."""
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def host_path(name: str) -> str:
    """Where on the node a volume is; empty if it is not of the node."""
    (volume,) = [volume for volume in pod()["volumes"] if volume["name"] == name]
    path: str = volume.get("hostPath", {}).get("path", "")
    return path


def rendered(tmp_path: Path) -> AgentConfig:
    """agent.toml as the init container's program writes it on a node; its two folders are in tmp_path here."""
    template, configuration = tmp_path / "template", tmp_path / "configuration"
    template.mkdir()
    configuration.mkdir()
    (template / "agent.toml").write_text(documents()["ConfigMap"]["data"]["agent.toml"])
    (container,) = pod()["initContainers"]
    assert {"/template", "/configuration"} == set(mounts(container))
    program, option, text = container["command"]
    assert (program, option) == ("/opt/wattledger/bin/python", "-c")
    text = text.replace('"/template/', f'"{template}/').replace('"/configuration/', f'"{configuration}/')
    assert {each["name"] for each in container["env"]} == set(NODE)
    done = subprocess.run([sys.executable, option, text], env=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return parse_config((configuration / "agent.toml").read_text())


@pytest.mark.parametrize("place", ["initContainers", "containers"])
def test_containers_have_least_rights(place: str) -> None:
    """User 0, who owns the counters, without any capability and unable to win one; nothing writable but its own state."""
    for container in pod()[place]:
        rights = container["securityContext"]
        assert rights["privileged"] is False
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        # What is added for another user than root stays in the bounding set and has no effect: root owns the files instead.
        assert rights["runAsUser"] == 0
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}


def test_the_pod_shares_nothing_with_its_node() -> None:
    """No namespace of the node, and the runtime's own filter of system calls."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod())
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_node_is_mounted_read_only() -> None:
    """Of the node there are the few folders that are meant, and none but the agent's own state can be written."""
    paths = {volume["name"]: host_path(volume["name"]) for volume in pod()["volumes"]}
    assert {path for path in paths.values() if path} == {
        *("/sys/class", "/sys/devices", "/sys/module", "/sys/fs/cgroup", "/proc"),
        *("/etc/machine-id", "/etc/wattledger/tls", "/var/lib/wattledger-agent"),
    }
    used = set()
    for container in (*pod()["initContainers"], *pod()["containers"]):
        for mount in container["volumeMounts"]:
            used.add(mount["name"])
            if paths[mount["name"]] not in {"", "/var/lib/wattledger-agent"}:
                assert mount["readOnly"] is True, mount
            # Read-only alone does not hold for what is mounted below a folder, such as control groups v1.
            if mount["mountPath"].startswith("/host/"):
                assert mount["recursiveReadOnly"] == "IfPossible", mount
    assert used == set(paths)


def test_sensors_are_where_the_agent_looks() -> None:
    """The options name the folders under which the node's own are mounted, each in its place."""
    arguments = agent()["args"]
    assert arguments[0] == "run"
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    sysfs, procfs = options["--sysfs-root"], options["--procfs-root"]
    for folder in ("class", "devices", "module", "fs/cgroup"):
        assert host_path(mounts(agent())[f"{sysfs}/{folder}"]["name"]) == f"/sys/{folder}"
    assert host_path(mounts(agent())[procfs]["name"]) == "/proc"
    assert host_path(mounts(agent())["/etc/machine-id"]["name"]) == "/etc/machine-id"
    assert str(Path(options["--config"]).parent) in mounts(agent())


def test_the_configuration_holds_on_each_node(tmp_path: Path) -> None:
    """The agent takes what the init container writes: with TLS, its state where it is mounted, the node's own kubelet."""
    config = rendered(tmp_path)
    assert config.collector.uses_tls
    assert config.state_dir in mounts(agent())
    assert str(Path(config.collector.key_file).parent) in mounts(agent())
    assert config.labels["hostname"] == NODE["NODE_NAME"]
    assert config.workloads.kubelet_url == f"https://{NODE['HOST_IP']}:10250"
    # With TLS the certificate names the host: one configuration fits all nodes.
    assert config.host == ""
    names = set(string.Template(documents()["ConfigMap"]["data"]["agent.toml"]).get_identifiers())
    assert names == set(NODE)


def test_the_token_may_read_names_of_pods_and_no_more() -> None:
    """One verb on one resource of the kubelet; nodes/proxy would let it run commands in every pod."""
    found = documents()
    assert found["ClusterRole"]["rules"] == [{"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}]
    account = found["ServiceAccount"]["metadata"]
    (subject,) = found["ClusterRoleBinding"]["subjects"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
    assert found["ClusterRoleBinding"]["roleRef"]["name"] == found["ClusterRole"]["metadata"]["name"]
    assert pod()["serviceAccountName"] == account["name"]
    # Only this pod has a token of the account.
    assert found["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod()["automountServiceAccountToken"] is True


def test_the_agent_asks_its_users_for_no_more_than_the_manifest_grants() -> None:
    """What it says where the kubelet refuses it is what an administrator does: nodes/proxy would be the node's keys."""
    (resource,) = documents()["ClusterRole"]["rules"][0]["resources"]

    def refuse() -> bytes:
        raise PermissionError(13, "Forbidden")

    names = KubeletNames(refuse, is_recorded=True)
    names.look(0, has_unknown=True)
    assert f"`get` `{resource}`" in names.problem
    remedy = FAULTS["kubelet-forbidden"].remedy
    assert f"--verb=get --resource={resource} " in remedy
    settings = (DEPLOY.parent / "README.md").read_text()
    (row,) = [line for line in settings.splitlines() if line.startswith("| `workloads.kubelet_token_file` |")]
    assert f"`get` on `{resource}`" in row


def test_every_node_is_metered() -> None:
    """A taint keeps no node from being metered, and the selector finds the pods of its template."""
    spec = documents()["DaemonSet"]["spec"]
    assert pod()["tolerations"] == [{"operator": "Exists"}]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    for kind in ("ServiceAccount", "ConfigMap", "DaemonSet"):
        assert documents()[kind]["metadata"]["namespace"] == documents()["Namespace"]["metadata"]["name"]
    level = documents()["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    # Any stricter level refuses folders of the node.
    assert level == "privileged"
