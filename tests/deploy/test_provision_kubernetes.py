"""Keys in a namespace: made once, stored before they are named, and whole after any end of the Job that makes them."""

import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import ed25519
from common.errors import BadInput, Bug, Unavailable
from common.ids import Index
from common.kubernetes import Kubernetes
from common.secret import Secret
from common.trust import read_roster
from common.wire.messages import Roster
from signer_service.provision import Plan, Provisioned
from signer_service.provision_kubernetes import Names, provision_namespace
from tests.deploy.kubernetes_api import TOKEN, Cluster, running_api

NAMES = Names.of("sf", "release")
OBJECTS = [
    ("Secret", "sf-operator-key"),
    ("Secret", "sf-edge-key"),
    ("Secret", "sf-identities"),
    ("Secret", "sf-sealing-keys"),
    ("ConfigMap", "sf-roster"),
]
"""In the order in which they are stored."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_api(tmp_path) as api:
        yield api


def run(
    cluster: Cluster, scratch: Path, signers: int = 3, threshold: int = 2, replaced: tuple[int, ...] = ()
) -> Provisioned:
    plan = Plan(signers, threshold, replace_seats=frozenset(map(Index, replaced)))
    # In memory, as in the Job: a disk that is busy with other things would make hundreds of durable writes slow.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="keys-", dir=memory if memory.is_dir() else scratch))
    folder.chmod(0o777)  # like the volume of a pod
    with cluster.client(retry_for_s=0.3) as api:
        try:
            return provision_namespace(api, NAMES, plan, os.urandom, folder)
        finally:
            assert list(folder.iterdir()) == [], "nothing is left where it worked"
            folder.rmdir()


def raw(cluster: Cluster, kind: str, name: str, key: str) -> bytes:
    return base64.b64decode(cluster.data(kind, name)[key])


def public(private: bytes) -> bytes:
    return ed25519.public_key(Secret(private))


def whole(cluster: Cluster, seats: int) -> Roster:
    """Everything that the roster names is there, and nothing else is needed; returns the roster."""
    operator_pub = raw(cluster, "ConfigMap", "sf-roster", "operator.pub")
    roster = read_roster(raw(cluster, "ConfigMap", "sf-roster", "roster.avro"), operator_pub)
    assert public(raw(cluster, "Secret", "sf-operator-key", "operator.key")) == operator_pub
    assert public(raw(cluster, "Secret", "sf-edge-key", "edge.key")) in roster.edge_keys
    assert {seat.index: seat.identity_key for seat in roster.seats} == {
        i: public(raw(cluster, "Secret", "sf-identities", f"sf-signer-{i - 1}")) for i in range(1, seats + 1)
    }
    for i in range(seats):
        assert len(raw(cluster, "Secret", "sf-sealing-keys", f"sf-signer-{i}")) == 32
    return roster


def secrets_of(cluster: Cluster) -> dict[tuple[str, str], dict[str, str]]:
    return {(kind, name): dict(cluster.data(kind, name)) for kind, name in cluster.objects if kind == "Secret"}


def test_an_empty_namespace_gets_every_key_before_the_roster_that_names_it(cluster: Cluster, tmp_path: Path) -> None:
    run(cluster, tmp_path)
    assert [each for each in cluster.asked if each.startswith("create")] == [
        f"create {kind} {name}" for kind, name in OBJECTS
    ]
    assert whole(cluster, 3).version == 1
    for kind, name in OBJECTS:
        assert cluster.objects[kind, name]["metadata"]["labels"]["signer-flow/release"] == "release"


def test_no_tool_that_clears_up_takes_what_it_did_not_make_for_its_own(cluster: Cluster, tmp_path: Path) -> None:
    """Argo CD takes whatever has such a label for a part of an application, and removes what that does not have."""
    run(cluster, tmp_path)
    # As a version before ours made it, and as somebody restored it: written again, it is kept like the others.
    cluster.objects["Secret", "sf-identities"]["metadata"]["labels"] = {
        "app.kubernetes.io/instance": "release",
        "a": "b",
    }
    del cluster.objects["Secret", "sf-identities"]["metadata"]["annotations"]
    run(cluster, tmp_path, 4)
    for kind, name in OBJECTS:
        metadata = cluster.objects[kind, name]["metadata"]
        assert "app.kubernetes.io/instance" not in metadata["labels"]
        assert metadata["annotations"] == {
            "helm.sh/resource-policy": "keep",
            "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
            "kustomize.toolkit.fluxcd.io/prune": "disabled",
        }
    assert cluster.objects["Secret", "sf-identities"]["metadata"]["labels"]["a"] == "b"


def test_run_again_it_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    run(cluster, tmp_path)
    before = {key: dict(value) for key, value in cluster.objects.items()}
    cluster.forbidden = {f"{verb} {kind}" for verb in ("create", "update") for kind in ("Secret", "ConfigMap")}
    assert "up to date" in run(cluster, tmp_path).lines[-1]
    assert cluster.objects == before


def test_another_committee_keeps_every_key_and_raises_the_rosters_version(cluster: Cluster, tmp_path: Path) -> None:
    run(cluster, tmp_path)
    before = secrets_of(cluster)
    run(cluster, tmp_path, 5, 3)
    assert whole(cluster, 5).version == 2
    for place, data in before.items():
        assert data.items() <= secrets_of(cluster)[place].items()
    run(cluster, tmp_path, 4, 3)
    assert (whole(cluster, 4).version, len(cluster.data("Secret", "sf-identities"))) == (3, 5), "nothing is deleted"


@pytest.mark.parametrize("kept", [False, True], ids=["not stored", "stored, and the answer lost"])
@pytest.mark.parametrize("dies_at", range(len(OBJECTS)))
@pytest.mark.parametrize("grows", [False, True], ids=["first run", "two seats more"])
def test_a_death_at_any_write_is_mended_by_the_next_run(
    cluster: Cluster, tmp_path: Path, dies_at: int, kept: bool, grows: bool
) -> None:
    if grows:
        run(cluster, tmp_path)
    doomed = OBJECTS[dies_at]

    def before(verb: str, kind: str, name: str) -> int | None:
        return 0 if (kind, name) == doomed and not kept else None

    cluster.before_write = before
    cluster.after_write = lambda verb, kind, name: (kind, name) != doomed
    seats, threshold = (5, 3) if grows else (3, 2)
    changed = not grows or doomed[1] not in ("sf-operator-key", "sf-edge-key")
    if changed and not kept:
        with pytest.raises(Unavailable):
            run(cluster, tmp_path, seats, threshold)
    else:
        # The repeated call finds its own first one: it reads again, and goes on with what is stored.
        run(cluster, tmp_path, seats, threshold)
    stored = secrets_of(cluster)
    if ("ConfigMap", "sf-roster") in cluster.objects:
        whole(cluster, len(read_now(cluster).seats))
    cluster.before_write = lambda verb, kind, name: None
    cluster.after_write = lambda verb, kind, name: True
    run(cluster, tmp_path, seats, threshold)
    assert whole(cluster, seats).version == (2 if grows else 1)
    for place, data in stored.items():
        assert data.items() <= secrets_of(cluster)[place].items(), "no key that was stored is made anew"


def read_now(cluster: Cluster) -> Roster:
    operator_pub = raw(cluster, "ConfigMap", "sf-roster", "operator.pub")
    return read_roster(raw(cluster, "ConfigMap", "sf-roster", "roster.avro"), operator_pub)


@pytest.mark.parametrize("contested", OBJECTS, ids=[name for _, name in OBJECTS])
def test_of_two_jobs_at_once_the_slower_goes_on_with_what_the_other_stored(
    cluster: Cluster, tmp_path: Path, contested: tuple[str, str]
) -> None:
    others: list[int] = []

    def another_is_faster(verb: str, kind: str, name: str) -> int | None:
        if (kind, name) == contested and not others:
            others.append(1)
            run(cluster, tmp_path)
        return None

    cluster.before_write = another_is_faster
    run(cluster, tmp_path)
    assert others
    assert whole(cluster, 3).version == 1


def test_jobs_that_always_lose_end_with_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    cluster.before_write = lambda verb, kind, name: 409
    with pytest.raises(Unavailable, match="one run at a time"):
        run(cluster, tmp_path)


def test_the_operators_key_may_be_taken_away_until_the_committee_changes(cluster: Cluster, tmp_path: Path) -> None:
    run(cluster, tmp_path)
    taken = cluster.objects.pop(("Secret", "sf-operator-key"))
    run(cluster, tmp_path)
    assert ("Secret", "sf-operator-key") not in cluster.objects, "no second operator"
    before = secrets_of(cluster)
    with pytest.raises(BadInput, match="operator"):
        run(cluster, tmp_path, 4, 3)
    assert secrets_of(cluster) == before
    cluster.objects["Secret", "sf-operator-key"] = taken
    run(cluster, tmp_path, 4, 3)
    assert whole(cluster, 4).version == 2


def test_without_operator_and_roster_no_other_system_is_made_beside_the_keys(cluster: Cluster, tmp_path: Path) -> None:
    run(cluster, tmp_path)
    for place in (("Secret", "sf-operator-key"), ("ConfigMap", "sf-roster")):
        del cluster.objects[place]
    before = secrets_of(cluster)
    with pytest.raises(BadInput, match="are gone, but sf-edge-key, sf-identities, sf-sealing-keys are there"):
        run(cluster, tmp_path)
    assert secrets_of(cluster) == before


def test_a_stolen_identity_is_replaced_once_it_was_taken_out_and_never_twice(cluster: Cluster, tmp_path: Path) -> None:
    run(cluster, tmp_path)
    told = run(cluster, tmp_path, replaced=(2,)).lines
    assert any("seat 2" in line and "take it out first" in line for line in told)
    assert whole(cluster, 3).version == 1
    stolen = cluster.data("Secret", "sf-identities").pop("sf-signer-1")
    run(cluster, tmp_path)
    assert read_now(cluster).version == 1, "a key that is merely away costs no seat its identity"
    run(cluster, tmp_path, replaced=(2,))
    assert whole(cluster, 3).version == 2
    assert cluster.data("Secret", "sf-identities")["sf-signer-1"] != stolen
    run(cluster, tmp_path, replaced=(2,))
    assert whole(cluster, 3).version == 2


@pytest.mark.parametrize("signers", [3, 4])
@pytest.mark.parametrize("gone", ["one key of it", "the Secret", "the Secret, and that of identities"])
def test_a_sealing_key_that_is_missing_is_not_made_anew_and_the_upgrade_stops_before_pods_do(
    cluster: Cluster, tmp_path: Path, signers: int, gone: str
) -> None:
    run(cluster, tmp_path)
    if gone == "one key of it":
        del cluster.data("Secret", "sf-sealing-keys")["sf-signer-1"]
    else:
        del cluster.objects["Secret", "sf-sealing-keys"]
    if "identities" in gone:
        del cluster.objects["Secret", "sf-identities"]
    before = secrets_of(cluster)
    with pytest.raises(BadInput, match=r"sf-sealing-keys has no .*sf-signer-1.*\(runbooks.md: A deleted Secret\)"):
        run(cluster, tmp_path, signers)
    assert secrets_of(cluster) == before
    assert read_now(cluster).version == 1


@pytest.mark.parametrize("dies_at", ["sf-identities", "sf-sealing-keys", "sf-roster"])
def test_a_seat_that_is_replaced_with_both_of_its_keys_is_finished_after_a_death_at_any_write(
    cluster: Cluster, tmp_path: Path, dies_at: str
) -> None:
    run(cluster, tmp_path)
    taken = [cluster.data("Secret", name).pop("sf-signer-1") for name in ("sf-identities", "sf-sealing-keys")]
    cluster.before_write = lambda verb, kind, name: 0 if name == dies_at else None
    with pytest.raises(Unavailable):
        run(cluster, tmp_path, replaced=(2,))
    cluster.before_write = lambda verb, kind, name: None
    run(cluster, tmp_path, replaced=(2,))
    assert whole(cluster, 3).version == 2
    made = [cluster.data("Secret", name)["sf-signer-1"] for name in ("sf-identities", "sf-sealing-keys")]
    assert not set(made) & set(taken)


def test_fewer_pods_than_can_hand_the_key_on_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    run(cluster, tmp_path, 5, 3)
    with pytest.raises(BadInput, match="go down to 3 first"):
        run(cluster, tmp_path, 2, 2)
    assert whole(cluster, 5).version == 1


@pytest.mark.parametrize("verb", ["get Secret", "create Secret", "create ConfigMap"])
def test_what_the_role_does_not_allow_is_one_line_that_shows_no_key(
    cluster: Cluster, tmp_path: Path, verb: str
) -> None:
    cluster.forbidden = {verb}
    with pytest.raises(BadInput) as caught:
        run(cluster, tmp_path)
    assert "Role" in caught.value.detail
    for text in ("quoted-object", TOKEN, "\n"):
        assert text not in caught.value.detail
    cluster.forbidden = set()
    run(cluster, tmp_path)
    assert whole(cluster, 3).version == 1


def test_an_api_that_is_away_for_a_moment_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    answers = iter([429, 500, 0, 503])
    cluster.before_write = lambda verb, kind, name: next(answers, None)
    with cluster.client() as api:
        provision_namespace(api, NAMES, Plan(3, 2), os.urandom, Path(tempfile.gettempdir()))
    assert whole(cluster, 3).version == 1
    assert next(answers, None) is None


def test_what_is_in_the_objects_and_is_no_key_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.store("Secret", {"metadata": {"name": "sf-operator-key"}, "data": {"operator.key": "AAAA"}})
    with pytest.raises(BadInput, match="32"):
        run(cluster, tmp_path)
    cluster.store("Secret", {"metadata": {"name": "sf-operator-key"}, "data": {"operator.key": "no base64!"}})
    with pytest.raises(BadInput, match="no base64"):
        run(cluster, tmp_path)
    cluster.store("Secret", {"metadata": {"name": "sf-operator-key"}, "data": {}})
    cluster.store("Secret", {"metadata": {"name": "sf-identities"}, "data": {"other-pod-0": "AAAA"}})
    with pytest.raises(BadInput):
        run(cluster, tmp_path)


def test_an_object_is_replaced_only_as_it_was_read(cluster: Cluster) -> None:
    with cluster.client() as api:
        assert api.create("ConfigMap", {"metadata": {"name": "a"}, "binaryData": {}})
        first = api.get("ConfigMap", "a")
        assert first is not None
        assert api.replace("ConfigMap", {**first, "binaryData": {"x": "AA=="}})
        assert not api.replace("ConfigMap", first), "somebody changed it meanwhile"
        assert api.get("ConfigMap", "none") is None
        with pytest.raises(Bug):
            api.replace("ConfigMap", {"metadata": {"name": "a"}})


@pytest.mark.parametrize("name", ["", "UPPER", "a_b", "-a", "a" * 64, "a/b"])
def test_a_name_that_kubernetes_has_not_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        Names.of(name, "release")


def test_outside_of_a_pod_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="in a pod only"):
        Kubernetes.of_this_pod({})
    there = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(BadInput, match="no service account"):
        Kubernetes.of_this_pod(there, tmp_path)
    command = [sys.executable, "-m", "signer_service", "provision", "--signers=3", "--threshold=2", f"--out={tmp_path}"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")}
    done = subprocess.run(
        [*command, "--kubernetes=sf"], env=clean, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
