"""What could only go wrong later is refused while rendering, by both helms, with a line that says what to do."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.deploy import test_live
from tests.deploy.chart import EXISTING, EXTERNAL, MONITORED, RELEASE, refusal
from tests.deploy.tools import CHART, run

pytestmark = pytest.mark.helm
TEMPLATES = CHART / "templates"

CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "threshold above size": (
        ("committee.threshold=4",),
        "committee.threshold is 4, but there are only 3 signers: raise",
    ),
    "one signer alone": (("committee.threshold=1",), "one signer alone would hold the key; set it to 2 or more"),
    "more signers than partitions": (("committee.size=13",), "so that 1 signers would get none: set it to 12 or less"),
    "replicas that are not the committee": (
        ("signer.replicas=5",),
        "leave signer.replicas empty, and change committee.size",
    ),
    "fewer replicas": (("signer.replicas=1",), "signer.replicas is 1 and committee.size is 3"),
    "none at all": (("signer.replicas=0",), "signer.replicas is 0 and committee.size is 3"),
    "a seat that does not exist": (("provision.replaceSeats={4}",), "names seat 4, but there are seats 1 to 3"),
    "keys from elsewhere without a name": (
        ("provision.enabled=false",),
        "existing.edgeSecret is empty: run `python -m",
    ),
    **{
        f"keys from elsewhere, all but one: {each}": (
            tuple(value for value in EXISTING if f".{each}=" not in value),
            f"provision.existing.{each} is empty",
        )
        for each in ("edgeSecret", "identitiesSecret", "sealingSecret", "rosterConfigMap")
    },
    "keys from elsewhere and made here": (EXISTING[1:], "set provision.enabled to false, or take the name out"),
    "another log begun elsewhere": ((*EXISTING, "provision.keyRecords=a"), "needs provision.enabled: elsewhere run"),
    "a seat replaced elsewhere": ((*EXISTING, "provision.replaceSeats={1}"), "needs provision.enabled: elsewhere run"),
    "an external broker without an address": (
        ("kafka.mode=external",),
        "external.bootstrap is empty: set it to the brokers",
    ),
    "an address for a bundled broker": (EXTERNAL[1:], "set kafka.mode to external, or take it out"),
    "strimzi without a cluster": (("kafka.mode=strimzi",), "kafka.strimzi.cluster is empty: set it to the name"),
    "a login for the bundled broker": (("kafka.security.existingSecret=a",), "the bundled broker asks for no login"),
    "one login per pod, but none": ((*EXTERNAL, "kafka.security.perPod=true"), "need kafka.security.existingSecret"),
    "a CA without a login": ((*EXTERNAL, "kafka.security.caSecret=ca"), "need kafka.security.existingSecret"),
    "tokens without a file": (("restApi.auth=tokens",), "make tokens.toml with `signer-flow token NAME --file"),
    "a file of tokens nobody asks for": (("restApi.tokensSecret=a",), "set restApi.auth to tokens"),
    "everybody from outside": (("restApi.ingress.enabled=true",), "lets everybody on its other side sign"),
    "everybody by a load balancer": (
        ("restApi.service.type=LoadBalancer",),
        "lets everybody who reaches its address sign: set restApi.auth to tokens, or restApi.service.anonymous",
    ),
    **{
        f"{part}.settings.{name}": (
            (f"{part}.settings.{name}=1", *more),
            f"is the chart's own to set: take it out{instead}",
        )
        for part, name, instead, more in (
            ("restApi", "AUTH", ", and set restApi.auth.", ()),
            ("restApi", "ALLOWED_HOSTS", ", and set restApi.allowedHosts.", ()),
            ("restApi", "PORT", ", and set restApi.service.port.", ()),
            ("restApi", "PINNED_KEYS", ", and set committee.publicKey.", (f"committee.publicKey={'A' * 43}=",)),
            ("signer", "TOPIC_PREFIX", ", and set kafka.topicPrefix.", ()),
            ("signer", "STATE_DIR", ".", ()),
            ("signer", "INDEX", ".", ()),
            ("signer", "KAFKA_EMBEDDED", ", and set kafka.mode.", ()),
            ("signer", "INSECURE_DEV", ".", ()),
        )
    },
    "fewer at most than at least": (
        ("restApi.autoscaling.enabled=true", "restApi.autoscaling.minReplicas=9"),
        "restApi.autoscaling.minReplicas is more than maxReplicas",
    ),
}
"""Values, and what is said."""

BY_SCHEMA: dict[str, tuple[tuple[str, ...], str]] = {
    "another broker": (("kafka.mode=zookeeper",), "/kafka/mode"),
    "a size that is no number": (("committee.size=three",), "/committee/size"),
    "a value that does not exist": (("commitee.size=3",), "commitee"),
    "a value that does not exist, further in": (("signer.autoscaling.enabled=true",), "autoscaling"),
    "an autoscaler of signers by another name": (("signer.hpa.enabled=true",), "hpa"),
    "another way to share a volume": (("signer.storage.accessMode=ReadWriteMany",), "/signer/storage/accessMode"),
    "a public key that is none": (("committee.publicKey=abc",), "/committee/publicKey"),
    "an image without a tag": (("image.tag=",), "/image/tag"),
}
"""What the schema of the values refuses: values, and what the message names."""

BEHIND_IT: dict[str, tuple[tuple[str, ...], str]] = {
    "another broker": (("kafka.mode=zookeeper",), "kafka.mode is zookeeper: set it to bundled, external or strimzi"),
}
"""The same where somebody switched that schema off (`--skip-schema-validation`)."""


@cache
def said(sets: tuple[str, ...], helm: str = "helm") -> str:
    return refusal(*sets, helm=helm)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_work_is_refused_with_what_to_do(case: str) -> None:
    sets, what = CASES[case]
    assert what in said(sets)


@pytest.mark.parametrize("case", ["threshold above size", "replicas that are not the committee"])
def test_helm_3_refuses_the_same_in_the_same_words(case: str) -> None:
    sets, what = CASES[case]
    assert what in said(sets, "helm3")


@pytest.mark.parametrize("case", BY_SCHEMA)
def test_the_schema_of_the_values_refuses_what_is_unknown_or_out_of_bounds(case: str) -> None:
    sets, what = BY_SCHEMA[case]
    assert "values don't meet the specifications of the schema" in said(sets)
    assert what in said(sets).replace(".", "/")


@cache
def said_without_schema(sets: tuple[str, ...]) -> str:
    words = [word for each in sets for word in ("--set", each)]
    done = run("helm", "template", RELEASE, CHART, "--skip-schema-validation", *words)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize("case", BEHIND_IT)
def test_where_nobody_looks_at_the_schema_the_templates_refuse_it(case: str) -> None:
    sets, what = BEHIND_IT[case]
    assert what in said_without_schema(sets)


def test_every_refusal_of_the_templates_is_tried(tmp_path: Path) -> None:
    """A `fail` that no case above reaches could be taken out, and nobody would notice."""
    text = "".join(path.read_text() for path in sorted(TEMPLATES.glob("*")))
    messages = re.findall(r'\bfail (?:\(printf )?"((?:[^"\\]|\\.)*)"', text)
    assert len(messages) == len(re.findall(r"\bfail\b(?= [\"(])", text)) >= 15
    heard = [said(sets) for sets, _ in CASES.values()] + [said_without_schema(sets) for sets, _ in BEHIND_IT.values()]
    heard += [test_live.said(case, tmp_path) for case in test_live.CASES]
    for message in messages:
        pattern = re.sub(r"%[dsq]", ".+", re.escape(message).replace(r"\%", "%"))
        assert any(re.search(pattern, each) for each in heard), message


def test_every_switch_of_the_values_is_on_and_off_in_some_way_of_use() -> None:
    """So that the checks of what is rendered see each branch; see ``chart.WAYS``."""
    from tests.deploy.chart import WAYS, yaml

    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def switches(values: dict[str, object], where: str = "") -> set[tuple[str, bool]]:
        found: set[tuple[str, bool]] = set()
        for name, value in values.items():
            if isinstance(value, dict):
                found |= switches(value, f"{where}{name}.")
            elif isinstance(value, bool):
                found.add((f"{where}{name}", value))
        return found

    used = {part for sets in WAYS.values() for part in sets}
    unused = [name for name, on in switches(defaults) if f"{name}={'false' if on else 'true'}" not in used]
    only_let_pass = {"restApi.service.anonymous", "restApi.ingress.anonymous"}
    assert set(unused) == only_let_pass, "beside those that only let pass what is refused above"
    assert set(MONITORED) <= used
