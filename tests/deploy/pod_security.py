"""Whether a pod would be let in where pod security "restricted" is enforced, and keeps our own rules beside.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (baseline and restricted, with the probes' hosts of
1.34), field by field. An evaluator instead of a cluster: what it does not know it refuses.
"""

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP = {"RuntimeDefault", "Localhost"}
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def pod_templates(thing: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name of the object, its pod template) for whatever makes pods."""
    name = f"{thing['kind']} {thing['metadata']['name']}"
    match thing["kind"]:
        case "Pod":
            yield name, thing
        case "StatefulSet" | "Deployment" | "DaemonSet" | "ReplicaSet" | "Job":
            yield name, thing["spec"]["template"]
        case "CronJob":
            yield name, thing["spec"]["jobTemplate"]["spec"]["template"]


def containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All of them, of whatever kind."""
    spec = pod["spec"]
    return [each for kind in ("initContainers", "containers", "ephemeralContainers") for each in spec.get(kind, [])]


def violations(pod: Mapping[str, Any]) -> list[str]:
    """What stands against it; empty: it is let in."""
    spec: Mapping[str, Any] = pod["spec"]
    context: Mapping[str, Any] = spec.get("securityContext", {})
    wrong = [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        wrong += [f"volume {volume['name']} is of kind {kind}" for kind in sorted(kinds - VOLUMES)]
    wrong += [f"sysctl {each['name']}" for each in context.get("sysctls", []) if each["name"] not in SYSCTLS]
    annotations = pod.get("metadata", {}).get("annotations", {})
    wrong += [each for each in annotations if each.startswith("container.apparmor.security.beta.kubernetes.io/")]
    wrong += [f"pod: {each}" for each in _shared(context)]
    for container in containers(pod):
        own: Mapping[str, Any] = container.get("securityContext", {})
        wrong += [f"{container['name']}: {each}" for each in (*_shared(own), *_container(container, own, context))]
    return wrong


def _shared(context: Mapping[str, Any]) -> Iterator[str]:
    """What may stand in a pod's context as well as in a container's."""
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    linux = context.get("seLinuxOptions", {})
    if linux.get("type") not in SELINUX or linux.get("user") or linux.get("role"):
        yield "seLinuxOptions"
    if context.get("appArmorProfile", {"type": "RuntimeDefault"})["type"] not in SECCOMP:
        yield "appArmorProfile"
    if "seccompProfile" in context and context["seccompProfile"]["type"] not in SECCOMP:
        yield "seccompProfile"
    if context.get("runAsUser") == 0:
        yield "runAsUser is root"


def _container(container: Mapping[str, Any], own: Mapping[str, Any], pods: Mapping[str, Any]) -> Iterator[str]:
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if own.get("runAsNonRoot", pods.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if "seccompProfile" not in own and "seccompProfile" not in pods:
        yield "no seccompProfile"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    hooks = [container.get("lifecycle", {}).get(each, {}) for each in ("postStart", "preStop")]
    for asks in (*(container.get(probe, {}) for probe in PROBES), *hooks):
        if any(asks.get(how, {}).get("host") for how in ("httpGet", "tcpSocket")):
            yield "a probe or hook asks another host"


def own_rules(pod: Mapping[str, Any]) -> list[str]:
    """Beyond the standard: nothing can be written but in volumes, nothing is injected, resources are bounded."""
    spec: Mapping[str, Any] = pod["spec"]
    wrong = []
    if spec.get("enableServiceLinks") is not False:
        wrong.append("enableServiceLinks is not false")
    if "automountServiceAccountToken" not in spec:
        wrong.append("automountServiceAccountToken is not said")
    for container in containers(pod):
        name = container["name"]
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            wrong.append(f"{name}: readOnlyRootFilesystem is not true")
        if "memory" not in container.get("resources", {}).get("limits", {}):
            wrong.append(f"{name}: no limit of memory")
        if container["image"].endswith(":latest") or ":" not in container["image"].rpartition("/")[2]:
            wrong.append(f"{name}: the image has no version")
    return wrong
