"""What helm refuses because of what is installed already, and what it does not: rendered against a cluster's API."""

from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chart import EXTERNAL, RELEASE, Object
from tests.deploy.live import NAMESPACE_OF_ALL, installed, upgrade

pytestmark = pytest.mark.helm

BROKERS = ("kafka.mode=external", "kafka.external.bootstrap=one.example:9094\\,two.example:9094")
TOKENS = ("restApi.auth=tokens", "restApi.tokensSecret=tokens")
BUNDLED = f"{RELEASE}-kafka:9092"
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "a running key is taken from its broker": ((), EXTERNAL, f"set kafka.movedFrom to {BUNDLED}."),
    "it is given an empty broker": (
        EXTERNAL,
        (),
        f"look for it at {BUNDLED}: there they sign on, and no share is ever",
    ),
    "other brokers": (BROKERS, EXTERNAL, "log is at one.example:9094,two.example:9094"),
    "another prefix": (
        (),
        ("kafka.topicPrefix=b.", f"kafka.movedFrom={BUNDLED}"),
        'made under kafka.topicPrefix "", and',
    ),
    "no prefix any more": (("kafka.topicPrefix=b.",), (), 'looked for under "", where nobody believes it: put it back'),
    "a move that was said of another place": ((), (*EXTERNAL, "kafka.movedFrom=elsewhere:9092"), "set kafka.movedFrom"),
    "another name": ((), ("fullnameOverride=other",), "it would be other-kafka, which has no key and no volume: put"),
    "an upgrade that forgot the values": (TOKENS, (), "would let everybody sign: add --reset-then-reuse-values"),
    "another size of shares": ((), ("signer.storage.size=2Gi",), "signer.storage: size 2Gi instead of 1Gi, which"),
    "another class of shares": ((), ("signer.storage.className=a",), 'className "a" instead of ""'),
    "another mode of shares": (
        (),
        ("signer.storage.accessMode=ReadWriteOnce",),
        f"accessMode ReadWriteOnce instead of ReadWriteOncePod, which Kubernetes cannot change in {RELEASE}-signer",
    ),
    "another volume of the broker": (
        (),
        ("kafka.bundled.size=9Gi", "kafka.bundled.className=a"),
        f"delete statefulset {RELEASE}-kafka --cascade=orphan",
    ),
}
"""Values of what is installed, values of the upgrade, and what is said."""

PASSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing new": ((), ()),
    "a log that was moved": ((), (*EXTERNAL, f"kafka.movedFrom={BUNDLED}")),
    "the upgrade after it, with the word that was said for it": (EXTERNAL, (*EXTERNAL, f"kafka.movedFrom={BUNDLED}")),
    "one of several brokers": (BROKERS, ("kafka.mode=external", "kafka.external.bootstrap=two.example:9094")),
    "the same size in other words": ((), ("signer.storage.size=1024Mi", "kafka.bundled.size=8192Mi")),
    "tokens that are asked for from now on": ((), TOKENS),
    "tokens that are meant to go": (TOKENS, ("restApi.service.anonymous=true",)),
    "another committee": ((), ("committee.size=5", "committee.threshold=3")),
    "an external broker's volume is nobody's": (EXTERNAL, (*EXTERNAL, "kafka.bundled.size=9Gi")),
}


def job(things: list[Object], name: str) -> Any:
    found = [each for each in things if (each["kind"], each["metadata"]["name"]) == ("Job", f"{RELEASE}-{name}")]
    return found[0]["spec"]["template"]["spec"] if found else None


def said(case: str, folder: Path, helm: str = "helm") -> str:
    before, after, _ = CASES[case]
    return upgrade(installed(*before), folder, *after, helm=helm)[1]


@pytest.mark.parametrize("case", CASES)
def test_what_an_upgrade_would_lose_or_break_off_half_way_is_refused_with_what_to_do(case: str, tmp_path: Path) -> None:
    assert CASES[case][2] in said(case, tmp_path)


@pytest.mark.parametrize("case", ["a running key is taken from its broker", "another size of shares"])
def test_helm_3_refuses_it_in_the_same_words(case: str, tmp_path: Path) -> None:
    assert CASES[case][2] in said(case, tmp_path, "helm3")


@pytest.mark.parametrize("case", PASSES)
def test_what_changes_no_place_and_no_volume_passes_and_a_move_that_was_said_does(case: str, tmp_path: Path) -> None:
    before, after = PASSES[case]
    things, why = upgrade(installed(*before), tmp_path, *after)
    assert (bool(things), why) == (True, "")


def test_another_release_in_the_namespace_is_nobodys_business(tmp_path: Path) -> None:
    theirs = [dict(each) for each in installed(*EXTERNAL)]
    for each in theirs[1:]:
        labels = {**each["metadata"]["labels"], "app.kubernetes.io/instance": "another"}
        each["metadata"] = {"name": "another-signer-flow-signer", "labels": labels}
    assert upgrade(theirs, tmp_path)[1] == ""


def test_an_install_that_never_came_as_far_as_signers_has_nothing_to_check_and_can_be_mended(tmp_path: Path) -> None:
    """A first install that failed is upgraded by `helm upgrade --install`; nobody is there to be asked."""
    things, _ = upgrade([NAMESPACE_OF_ALL], tmp_path)
    assert job(things, "upgrade-check") is None
    assert "--was=0" in job(things, "hand-on")["containers"][0]["args"]


def test_where_signers_run_or_nobody_knows_the_upgrade_is_checked(tmp_path: Path) -> None:
    for things in (installed(), []):
        assert job(upgrade(things, tmp_path)[0], "upgrade-check") is not None


def test_the_job_that_waits_for_the_key_is_told_how_many_signers_there_are_now(tmp_path: Path) -> None:
    things, _ = upgrade(installed("committee.size=5", "committee.threshold=3"), tmp_path)
    args = job(things, "hand-on")["containers"][0]["args"]
    assert {"--signers=3", "--was=5", f"--pods-of={RELEASE}-signer"} <= set(args)
