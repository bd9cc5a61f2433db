"""The chart as it would be installed: rendered without a cluster, parsed, and remembered for the next who asks."""

from functools import cache
from importlib import import_module
from typing import Any

from tests.deploy.tools import CHART, SCHEMAS, need, run

yaml: Any = import_module("yaml")
Object = dict[str, Any]

RELEASE = "signer-flow"
NAMESPACE = "signing"
EXISTING = (
    "provision.enabled=false",
    *(f"provision.existing.{each}=my-{each.lower()}" for each in ("edgeSecret", "identitiesSecret", "sealingSecret")),
    "provision.existing.rosterConfigMap=my-roster",
)
MONITORED = tuple(f"monitoring.{each}.enabled=true" for each in ("serviceMonitor", "rules", "dashboard"))
EXTERNAL = ("kafka.mode=external", "kafka.external.bootstrap=kafka.example:9094")
WAYS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "five of which three sign, monitored": ("committee.size=5", "committee.threshold=3", *MONITORED),
    "keys made elsewhere": EXISTING,
    "an external broker with a login per pod": (
        *EXTERNAL,
        "kafka.security.existingSecret=login",
        "kafka.security.perPod=true",
        "kafka.security.caSecret=ca",
        "kafka.topicPrefix=a.",
    ),
    "an external broker with one login": (
        *EXTERNAL,
        "kafka.security.existingSecret=login",
        "kafka.topics.create=false",
    ),
    "strimzi": ("kafka.mode=strimzi", "kafka.strimzi.cluster=my", "kafka.strimzi.namespace=kafka"),
    "to the outside world": (
        "restApi.auth=tokens",
        "restApi.tokensSecret=tokens",
        "restApi.ingress.enabled=true",
        "restApi.ingress.className=nginx",
        "restApi.ingress.tlsSecret=tls",
        "restApi.ingress.annotations.a=b",
        "restApi.autoscaling.enabled=true",
        "restApi.service.type=LoadBalancer",
        "restApi.trustedProxies={10.0.0.0/8}",
        "restApi.allowedHosts={sign.example}",
    ),
    "by a port of each node": ("restApi.service.type=NodePort", "restApi.service.nodePort=30080"),
    "a place of its own": (
        "image.registry=registry.example",
        "image.pullSecrets={login}",
        *(f"{part}.nodeSelector.a=b" for part in ("signer", "restApi")),
        *(f"{part}.tolerations[0].key=a" for part in ("signer", "restApi")),
        *(f"{part}.podAnnotations.a=b" for part in ("signer", "restApi")),
        "signer.storage.className=fast",
        "signer.settings.HEAL_DELAY_MS=5000",
        "restApi.settings.DEADLINE_MS=2000",
        "otlpEndpoint=http://collector:4318",
        "committee.publicKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ),
    "without guards": ("guards.enabled=false", "upgradeCheck.enabled=false", "networkPolicy.enabled=false"),
}
"""Values that between them use every template and every branch that matters."""


def asked(sets: tuple[str, ...]) -> list[str]:
    # Text where a value has to be text although it looks like a number.
    return [word for each in sets for word in ("--set-string" if ".settings." in each else "--set", each)]


@cache
def rendered(sets: tuple[str, ...] = (), helm: str = "helm", release: str = RELEASE) -> str:
    """The manifest, hooks and tests among it.

    Raises:
        AssertionError: the chart refused; the message is what it said.
    """
    done = run(helm, "template", release, CHART, "--namespace", NAMESPACE, *asked(sets))
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _objects(sets: tuple[str, ...], release: str) -> tuple[Object, ...]:
    return tuple(each for each in yaml.safe_load_all(rendered(sets, release=release)) if each)


def objects(sets: tuple[str, ...] = (), release: str = RELEASE) -> tuple[Object, ...]:
    """The manifest, parsed. Nobody may change what he gets."""
    return _objects(sets, release)


def one(kind: str, name: str, sets: tuple[str, ...] = ()) -> Object:
    """The one object of that kind and name."""
    (found,) = [each for each in objects(sets) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def refusal(*sets: str, helm: str = "helm") -> str:
    """What the chart says instead of rendering with these values."""
    done = run(helm, "template", RELEASE, CHART, "--namespace", NAMESPACE, *asked(sets))
    assert done.returncode != 0, f"{sets} was not refused"
    return done.stderr


def supported() -> tuple[str, str]:
    """The oldest Kubernetes that the chart takes, and the newest whose schemas there are."""
    if not SCHEMAS.is_dir():
        need("folder of schemas")
    oldest = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"].removeprefix(">=").removesuffix("-0")
    known = sorted((each.name[1:] for each in SCHEMAS.iterdir()), key=lambda text: [int(n) for n in text.split(".")])
    assert known[0] == oldest, "Chart.yaml and .ci/helm-tools name different oldest versions"
    return known[0], known[-1]
