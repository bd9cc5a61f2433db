"""A ceremony log that is lost is replaced where keys and roster lie in a namespace: by the roster there, and no key."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import BadInput
from common.ids import Index
from common.trust import read_roster
from common.wire import codec
from common.wire.messages import Roster
from signer_service.key_records import LEAVES, read_file
from signer_service.new_log import NewLog
from signer_service.provision import Plan
from signer_service.provision_kubernetes import Names, operator_key, provision_namespace
from tests.deploy.kubernetes_api import Cluster, running_api
from tests.playbook import House, private, public
from tests.protocol.crash_world import beginning

NAMES = Names.of("sf", "release")
SEATS = (1, 2, 3)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A namespace in which three seats have made a key."""

    def store(kind: str, name: str, **data: bytes) -> None:
        where = "data" if kind == "Secret" else "binaryData"
        encoded = {key.replace("_", "."): base64.b64encode(each).decode() for key, each in data.items()}
        api.store(kind, {"metadata": {"name": name}, where: encoded})

    with running_api(tmp_path) as api:
        store("Secret", "sf-operator-key", operator_key=private("operator").expose())
        store("Secret", "sf-identities", **{NAMES.key_of(Index(i)): private(f"seat {i}").expose() for i in SEATS})
        store("Secret", "sf-sealing-keys", **{NAMES.key_of(Index(i)): os.urandom(32) for i in SEATS})
        roster = House().roster(2, SEATS, version=4)
        store("ConfigMap", "sf-roster", operator_pub=public("operator"), roster_avro=roster)
        yield api


def printed(folder: Path) -> Path:
    """What `key-records` prints, as a file that is mounted."""
    path = folder / "key-records"
    record = base64.b64encode(codec.encode(beginning(2, 3).record)).decode()
    path.write_text(f"{LEAVES}1\n{record}\n")
    return path


def run(cluster: Cluster, folder: Path, records: Path | None, signers: int = 3) -> Roster:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    with cluster.client(retry_for_s=0.3) as api:
        new_log: NewLog | None = None
        if records is not None:
            new_log = read_file(records, operator_key(api, NAMES), "")
        return provision_namespace(api, NAMES, Plan(signers, 2, new_log=new_log), os.urandom, scratch).roster


def stored(cluster: Cluster) -> Roster:
    return read_roster(base64.b64decode(cluster.data("ConfigMap", "sf-roster")["roster.avro"]), public("operator"))


def test_another_log_is_begun_by_the_roster_of_the_namespace_and_by_nothing_else(
    cluster: Cluster, tmp_path: Path
) -> None:
    secrets = {place: dict(cluster.data(*place)) for place in cluster.objects if place[0] == "Secret"}
    before = stored(cluster)
    roster = run(cluster, tmp_path, printed(tmp_path))
    assert stored(cluster) == roster
    assert (roster.version, roster.log_generation) == (5, 2)
    assert roster.checkpoints == (codec.encode(beginning(2, 3).record),)
    assert (roster.seats, roster.keys, roster.edge_keys) == (before.seats, before.keys, before.edge_keys)
    assert {place: dict(cluster.data(*place)) for place in secrets} == secrets
    # Left among the values of a release it does nothing more, nor is it in the way of another committee.
    assert run(cluster, tmp_path, printed(tmp_path)) == roster
    assert run(cluster, tmp_path, None) == roster
    assert run(cluster, tmp_path, printed(tmp_path), signers=4).log_generation == 2


def test_records_of_another_operator_and_a_namespace_without_a_roster_begin_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    records = printed(tmp_path)
    before = dict(cluster.data("ConfigMap", "sf-roster"))
    cluster.data("ConfigMap", "sf-roster")["operator.pub"] = base64.b64encode(public("somebody else")).decode()
    with pytest.raises(BadInput, match="not to be believed"):
        run(cluster, tmp_path, records)
    cluster.data("ConfigMap", "sf-roster").update(before)
    assert cluster.data("ConfigMap", "sf-roster") == before
    del cluster.objects["ConfigMap", "sf-roster"]
    with pytest.raises(BadInput, match=r"has no operator\.pub"):
        run(cluster, tmp_path, records)
