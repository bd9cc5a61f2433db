"""What the chart's Jobs and tests ask: may this system be upgraded, has a smaller committee the key, does it sign."""

import base64
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import ed25519
from common.errors import Unavailable
from common.kafka.port import Ensured
from rest_api.client import PublicKey
from rest_api.commands.hand_on import going, still_held
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


NOBODY = "http://127.0.0.1:1"


@pytest.mark.anyio
async def test_an_upgrade_is_refused_with_what_is_wrong_and_a_way_around_that_holds_for_one_revision(pod: Pod) -> None:
    # The key `late` stands in the roster and was never made.
    done = await cli("upgrade-check", "--wait-s", "1", "--revision", "6", "--url", pod.url)
    assert (done.code, done.out) == (4, b"")
    last = done.err.splitlines()[-1]
    assert "late is not generated yet" in last
    assert "--set upgradeCheck.skipRevision=7" in last
    away = await cli("upgrade-check", "--wait-s", "1", "--url", NOBODY)
    assert (away.code, "no API pod can be asked" in away.err) == (4, True)
    assert "uninstalled and installed right" in away.err


@pytest.mark.anyio
async def test_a_pod_that_is_away_does_not_keep_the_others_from_being_asked(pod: Pod) -> None:
    held = await cli("hand-on", "--signers", "2", "--wait-s", "1", "--url", NOBODY, "--url", pod.url)
    assert (held.code, "default by 3" in held.err) == (4, True)
    checked = await cli("upgrade-check", "--wait-s", "1", "--url", NOBODY, "--url", pod.url)
    assert "late is not generated yet" in checked.err.splitlines()[-1]


@pytest.mark.anyio
async def test_pods_go_only_when_no_key_is_held_by_more_than_are_to_stay(pod: Pod) -> None:
    held = await cli("hand-on", "--signers", "2", "--wait-s", "1", "--url", pod.url)
    assert (held.code, held.out) == (4, b"")
    assert "default by 3" in held.err
    # Three hold `default`, but nobody here has ever read a record of `late`.
    enough = await cli("hand-on", "--signers", "3", "--url", pod.url)
    assert (enough.code, "no signer goes" in enough.err) == (0, True)
    unread = await cli("hand-on", "--signers", "3", "--was", "5", "--wait-s", "1", "--url", pod.url)
    assert (unread.code, "no API pod knows the record of late" in unread.err) == (4, True)


@pytest.mark.anyio
async def test_not_to_know_who_holds_a_key_stops_signers_from_going_and_nothing_else() -> None:
    stays = await cli("hand-on", "--signers", "3", "--was", "3", "--url", NOBODY)
    assert (stays.code, "not waiting: no API pod can be asked" in stays.line) == (0, True)
    goes = await cli("hand-on", "--signers", "3", "--was", "5", "--wait-s", "1", "--revision", "4", "--url", NOBODY)
    assert (goes.code, goes.out) == (4, b"")
    last = goes.err.splitlines()[-1]
    assert "no API pod can be asked" in last
    assert "signer 5 would go" in last
    assert "--set handOn.skipRevision=5" in last
    said = await cli("hand-on", "--signers", "3", "--was", "5", "--skip-unreachable", "--url", NOBODY)
    assert (said.code, "signer 5 goes" in said.line) == (0, True)


def key_of(signers: int, key_id: str = "default") -> PublicKey:
    return PublicKey(key_id, bytes(32), 1, 2, signers)


def test_a_pod_that_has_read_no_record_of_a_key_does_not_say_that_nobody_holds_it() -> None:
    """A pod that was started while the broker is away knows the names of the keys, by the roster, and no more."""
    cluster = settled()
    assert still_held(cluster, [key_of(3)], 3) == ""
    assert still_held(cluster, [key_of(5)], 3) == "default by 5"
    assert "knows the record of default" in still_held(cluster, [], 3)
    cluster["keys"].append({"key_id": "other"})
    assert "knows the record of other" in still_held(cluster, [key_of(3)], 3)
    assert still_held(cluster, [key_of(5)], 3) == "default by 5"


class Names:
    """DNS of a cluster."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pods: int, otherwise: int) -> None:
        self.there = {f"sf-signer-{ordinal}.sf-signer" for ordinal in range(pods)}
        self.otherwise = otherwise
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: None) -> list[object]:
        if host not in self.there:
            raise socket.gaierror(self.otherwise, "says the resolver")
        return []


def test_who_goes_is_known_by_the_number_of_before_or_by_the_names_of_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback's Job was rendered long ago, and does not know how many there are now."""
    Names(monkeypatch, 5, socket.EAI_NONAME)
    assert going(3, 5, "") == "signer 5"
    assert going(3, 3, "") == ""
    assert going(3, 0, "sf-signer") == "sf-signer-3"
    assert going(5, 3, "sf-signer") == ""


def test_a_cluster_that_denies_no_name_is_asked_for_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a way out, its DNS fails for what it does not know; and without DNS nobody can tell."""
    Names(monkeypatch, 3, socket.EAI_AGAIN)
    assert going(3, 0, "sf-signer") == ""
    assert going(2, 0, "sf-signer") == "sf-signer-2"
    Names(monkeypatch, 0, socket.EAI_AGAIN)
    assert "DNS does not tell" in going(3, 0, "sf-signer")
    Names(monkeypatch, 0, socket.EAI_NONAME)
    assert going(3, 0, "sf-signer") == "", "a first install that failed has no pods"


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
