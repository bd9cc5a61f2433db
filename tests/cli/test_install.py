"""What the chart's Jobs and tests ask: may this system be upgraded, has a smaller committee the key, does it sign."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import ed25519
from common.errors import Unavailable
from common.kafka.port import Ensured
from rest_api.commands.install import _while_away, unsettled
from rest_api.commands.topics import _waiting
from tests.cli.running import cli
from tests.deploy.kubernetes_api import running_api
from tests.rest_api.world import Pod, World


def settled() -> dict[str, Any]:
    return {
        "keys": [{"key_id": "default", "epoch": 2, "quorum_margin": 1, "ceremony": None}],
        "replicas": [{"index": i, "state": "ready", "epochs": {"default": 2}} for i in (1, 2, 3)],
    }


def ceremony(cluster: dict[str, Any]) -> None:
    cluster["keys"][0]["ceremony"] = {"kind": "reshare", "phase": "deal", "attempt": 1, "awaited": [2]}


def skew(cluster: dict[str, Any]) -> None:
    cluster["replicas"][1]["epochs"] = {"default": 1}


def silence(cluster: dict[str, Any]) -> None:
    cluster["replicas"][2] = {"index": 3, "state": "silent", "epochs": {}}


def no_key(cluster: dict[str, Any]) -> None:
    cluster["keys"][0]["epoch"] = 0


def test_a_system_at_rest_may_be_upgraded() -> None:
    assert unsettled(settled()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (ceremony, r"a ceremony of default is running \(reshare, phase deal, awaits \[2\]\)"),
        (skew, "different epochs of default: 1, 2"),
        (silence, "replica 3 is silent"),
        (no_key, "default is not generated yet"),
    ],
)
def test_one_in_a_ceremony_in_two_epochs_or_with_a_replica_away_may_not(
    change: Callable[[dict[str, Any]], None], words: str
) -> None:
    cluster = settled()
    change(cluster)
    assert len(found := unsettled(cluster)) == 1
    assert re.search(words, found[0])


@pytest.mark.anyio
async def test_an_upgrade_is_refused_with_what_is_wrong_and_the_way_around(pod: Pod) -> None:
    # The key `late` stands in the roster and was never made.
    done = await cli("upgrade-check", "--wait-s", "1", "--url", pod.url)
    assert (done.code, done.out) == (4, b"")
    last = done.err.splitlines()[-1]
    assert "late is not generated yet" in last
    assert "--set upgradeCheck.enabled=false" in last
    away = await cli("upgrade-check", "--wait-s", "1", "--url", "http://127.0.0.1:1")
    assert (away.code, "no API pod can be asked" in away.err) == (4, True)


@pytest.mark.anyio
async def test_pods_go_only_when_no_key_is_held_by_more_than_are_to_stay(pod: Pod) -> None:
    enough = await cli("hand-on", "--signers", "3", "--url", pod.url)
    assert (enough.code, enough.err) == (0, "")
    held = await cli("hand-on", "--signers", "2", "--wait-s", "1", "--url", pod.url)
    assert (held.code, held.out) == (4, b"")
    assert "default by 3" in held.err


@pytest.mark.anyio
async def test_a_proof_signs_verifies_and_believes_in_the_pinned_key_alone(pod: Pod, shared_world: World) -> None:
    pinned = base64.b64encode(shared_world.trust.group_pub).decode()
    done = await cli("prove", "--count", "2", "--public-key", pinned, "--url", pod.url)
    assert (done.code, done.err) == (0, "")
    assert f"2 signatures are valid under {pinned}, made by [1, 2]" in done.out.decode()
    unpinned = await cli("prove", "--count", "1", "--url", pod.url)
    assert (unpinned.code, pinned in unpinned.line) == (0, True)
    other = base64.b64encode(ed25519.generate_keypair(bytes(32))[1]).decode()
    wrong = await cli("prove", "--public-key", other, "--url", pod.url)
    assert (wrong.code, wrong.out) == (1, b"")


def pod_object(uid: str) -> dict[str, Any]:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": "sf-signer-0", "uid": uid}, "status": ready}


def test_signing_goes_on_from_the_eviction_until_another_pod_of_that_name_is_ready(tmp_path: Path) -> None:
    with running_api(tmp_path) as cluster, cluster.client() as api:
        cluster.store("Pod", pod_object("a"))
        signed = 0
        for _ in _while_away(api, "sf-signer-0", 30.0):
            signed += 1
        assert signed == 1
        assert cluster.objects["Pod", "sf-signer-0"]["metadata"]["uid"] == "a'"
        assert [each for each in cluster.asked if each.startswith("evict")] == ["evict Pod sf-signer-0"]


def test_an_eviction_that_the_budget_forbids_ends_with_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_api(tmp_path) as cluster, cluster.client() as api:
        cluster.store("Pod", pod_object("a"))
        cluster.budget = 0
        with pytest.raises(SystemExit) as ended:
            list(_while_away(api, "sf-signer-0", 1.0))
        assert ended.value.code == 4
        assert "disruption budget forbids it" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            list(_while_away(api, "sf-signer-1", 1.0))


def test_a_broker_that_is_still_starting_is_waited_for_and_one_that_stays_away_is_an_error() -> None:
    answers: list[Unavailable | Ensured] = [Unavailable("broker-unreachable", "no broker answers"), Ensured((), ())]

    def ask() -> Ensured:
        answer = answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    assert _waiting(ask, 60.0) == Ensured((), ())
    answers.append(Unavailable("broker-unreachable", "no broker answers"))
    with pytest.raises(Unavailable):
        _waiting(ask, 0.0)
