"""Provisioning keeps what exists, adds what is missing, and overwrites and deletes nothing."""

import os
import stat
from pathlib import Path

import pytest

from common import ed25519
from common.errors import BadInput, Unavailable
from common.ids import Index, KeyId
from common.secret import Secret
from common.trust import read_roster
from common.wire.envelope import sign_roster
from common.wire.messages import Roster
from signer_service.provision import Plan, parse_key, provision
from signer_service.shell import disk
from tests.shell.crashing import Crash, crash, crash_at

KEY = KeyId("default")


def run(out: Path, signers: int, threshold: int, *keys: str) -> Roster:
    return provision(out, Plan(signers, threshold, tuple(parse_key(key) for key in keys)), os.urandom).roster


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def public(path: Path) -> bytes:
    return ed25519.public_key(Secret(path.read_bytes()))


def test_the_first_run_makes_every_file_private_and_a_roster_that_verifies(tmp_path: Path) -> None:
    out = tmp_path / "keys"
    run(out, 3, 2)
    seats = [f"seats/{i}/{name}.key" for i in (1, 2, 3) for name in ("identity", "sealing")]
    assert sorted(files(out)) == sorted(["operator.key", "operator.pub", "edge.key", "edge.pub", "roster.avro", *seats])
    for path in out.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600 if path.suffix == ".key" else 0o644)
    assert all(len(data) == 32 for name, data in files(out).items() if name != "roster.avro")
    roster = read_roster((out / "roster.avro").read_bytes(), (out / "operator.pub").read_bytes())
    assert (roster.version, roster.protocol_version, roster.log_generation) == (1, 1, 1)
    assert [(key.key_id, key.threshold, key.public_key) for key in roster.keys] == [("default", 2, b"")]
    assert {seat.index: seat.identity_key for seat in roster.seats} == {
        i: public(out / f"seats/{i}/identity.key") for i in (1, 2, 3)
    }
    assert roster.edge_keys == (public(out / "edge.key"),)
    assert (out / "operator.pub").read_bytes() == public(out / "operator.key")


def test_the_same_run_again_changes_no_byte(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    before = files(tmp_path)
    run(tmp_path, 3, 2)
    assert files(tmp_path) == before


def test_growing_keeps_every_key_adds_seats_and_writes_the_next_version(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    before = files(tmp_path)
    roster = run(tmp_path, 5, 3)
    after = files(tmp_path)
    assert all(after[name] == data for name, data in before.items() if name != "roster.avro")
    assert roster.version == 2
    assert [seat.index for seat in roster.seats] == [1, 2, 3, 4, 5]
    assert roster.keys[0].threshold == 3


def test_shrinking_drops_the_seat_from_the_roster_and_deletes_no_file(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    before = files(tmp_path)
    done = provision(tmp_path, Plan(2, 2), os.urandom)
    assert [seat.index for seat in done.roster.seats] == [1, 2]
    assert set(files(tmp_path)) == set(before)
    assert any("seats/3" in line and "destroy" in line for line in done.lines)


def test_a_public_key_that_was_pinned_stays_pinned(tmp_path: Path) -> None:
    first = run(tmp_path, 3, 2)
    pinned = tuple(type(key)(key.key_id, key.threshold, ed25519.public_key(Secret(b"g" * 32))) for key in first.keys)
    operator = Secret((tmp_path / "operator.key").read_bytes())
    second = Roster(2, 1, 1, first.seats, pinned, first.edge_keys, (), bytes(64))
    (tmp_path / "roster.avro").write_bytes(sign_roster(second, operator))
    roster = run(tmp_path, 5, 3, "payments:2")
    assert roster.version == 3
    assert [(key.key_id, key.threshold, key.public_key) for key in roster.keys] == [
        ("default", 2, pinned[0].public_key),
        ("payments", 2, b""),
    ]


def test_keys_are_named_and_what_is_not_named_stays(tmp_path: Path) -> None:
    assert [(k.key_id, k.threshold) for k in run(tmp_path, 4, 2, "a:2", "b:3").keys] == [("a", 2), ("b", 3)]
    assert [(k.key_id, k.threshold) for k in run(tmp_path, 4, 2, "b:4").keys] == [("a", 2), ("b", 4)]
    assert run(tmp_path, 4, 2).version == 2


@pytest.mark.parametrize(
    ("signers", "threshold", "keys", "word"),
    [
        (3, 4, (), "only 3 signers"),
        (3, 1, (), "one replica alone"),
        (3, 0, (), "one replica alone"),
        (1, 1, (), "--signers"),
        (256, 2, (), "--signers"),
        (3, 2, ("Big:2",), "a key id is"),
        (3, 2, (":2",), "a key id is"),
        (3, 2, ("default",), "ID:THRESHOLD"),
        (3, 2, ("default:two",), "ID:THRESHOLD"),
        (3, 2, ("a:2", "a:3"), "twice"),
        (3, 2, ("a:5",), "key a"),
    ],
)
def test_numbers_and_names_that_make_no_sense_are_refused_and_nothing_is_made(
    tmp_path: Path, signers: int, threshold: int, keys: tuple[str, ...], word: str
) -> None:
    with pytest.raises(BadInput, match=word):
        run(tmp_path / "keys", signers, threshold, *keys)
    assert not (tmp_path / "keys").exists()


def test_a_key_whose_threshold_no_longer_fits_is_named_with_the_remedy(tmp_path: Path) -> None:
    run(tmp_path, 5, 2, "a:5", "b:2")
    with pytest.raises(BadInput, match="--key a:T"):
        run(tmp_path, 3, 2)


def test_without_the_operator_key_nothing_may_change_but_a_look_is_allowed(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    (tmp_path / "operator.key").rename(tmp_path.parent / "safe")
    before = files(tmp_path)
    run(tmp_path, 3, 2)
    assert files(tmp_path) == before
    with pytest.raises(BadInput, match=r"operator\.key.*bring it back"):
        run(tmp_path, 5, 2)
    assert files(tmp_path)["roster.avro"] == before["roster.avro"]
    (tmp_path.parent / "safe").rename(tmp_path / "operator.key")
    assert run(tmp_path, 5, 2).version == 2


def test_keys_that_were_moved_to_their_replicas_are_not_made_again(tmp_path: Path) -> None:
    first = run(tmp_path, 3, 2)
    for name in ("seats/2/identity.key", "seats/2/sealing.key", "edge.key", "edge.pub"):
        (tmp_path / name).unlink()
    second = run(tmp_path, 4, 2)
    assert second.seats[:3] == first.seats
    assert second.edge_keys == first.edge_keys
    assert not (tmp_path / "seats/2/identity.key").exists()
    replaced = provision(tmp_path, Plan(4, 2, replace_seats=frozenset({Index(2)})), os.urandom).roster
    assert replaced.seats[1].identity_key != first.seats[1].identity_key
    with pytest.raises(BadInput, match=r"move .* away first"):
        provision(tmp_path, Plan(4, 2, replace_seats=frozenset({Index(2)})), os.urandom)


def test_a_sealing_key_that_is_missing_is_not_made_anew_for_nothing_would_open_what_is_sealed_under_it(
    tmp_path: Path,
) -> None:
    first = run(tmp_path, 3, 2)
    taken = tmp_path / "seats/2/sealing.key"
    kept = taken.read_bytes()
    taken.unlink()
    before = files(tmp_path)
    for signers in (3, 4):
        with pytest.raises(BadInput, match=r"seats/2/sealing\.key is missing, .* bring it back .*--replace-seat 2"):
            run(tmp_path, signers, 2)
        assert files(tmp_path) == before, "nothing was made"
    disk.create_durably(taken, kept)
    assert run(tmp_path, 3, 2) == first
    # A seat that is given another identity has no share, so it may have another sealing key.
    taken.unlink()
    (tmp_path / "seats/2/identity.key").unlink()
    provision(tmp_path, Plan(3, 2, replace_seats=frozenset({Index(2)})), os.urandom)
    assert taken.read_bytes() != kept


def test_a_replacement_cut_short_between_its_two_keys_is_finished_by_the_next_run(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    for name in ("identity", "sealing"):
        (tmp_path / f"seats/2/{name}.key").unlink()
    disk.create_durably(tmp_path / "seats/2/identity.key", b"i" * 32)
    roster = run(tmp_path, 3, 2)
    assert roster.seats[1].identity_key == ed25519.public_key(Secret(b"i" * 32))
    assert len((tmp_path / "seats/2/sealing.key").read_bytes()) == 32


def test_a_new_edge_key_joins_the_old_one_so_that_pods_can_change_over(tmp_path: Path) -> None:
    first = run(tmp_path, 3, 2)
    (tmp_path / "edge.key").unlink()
    (tmp_path / "edge.pub").unlink()
    disk.create_durably(tmp_path / "edge.key", b"e" * 32)
    second = run(tmp_path, 3, 2)
    assert second.edge_keys == (*first.edge_keys, ed25519.public_key(Secret(b"e" * 32)))


def test_foreign_or_broken_files_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    whole = files(tmp_path)
    for name, data, word in (
        ("operator.pub", bytes(range(32)), "foreign"),
        ("edge.pub", bytes(range(32)), "foreign"),
        ("seats/1/identity.key", b"short", "bytes, not 32"),
        ("seats/1/sealing.key", b"short", "bytes, not 32"),
        ("roster.avro", whole["roster.avro"][:-1], "cannot be gone on from"),
        ("roster.avro", whole["roster.avro"][:-1] + b"x", "cannot be gone on from"),
        ("seats/1/identity.key", whole["seats/2/identity.key"], "same identity"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=word):
            run(tmp_path, 3, 2)
        (tmp_path / name).write_bytes(whole[name])
    assert files(tmp_path) == whole


def test_a_run_cut_short_at_any_step_is_finished_by_the_next(tmp_path: Path) -> None:
    step = 0
    while True:
        out = tmp_path / str(step)
        try:
            with crash_at(step, crash):
                run(out, 2, 2)
        except Crash:
            kept = {name: data for name, data in files(out).items() if not name.endswith(".tmp")}
            roster = run(out, 2, 2)
            assert roster.version == 1
            assert all(files(out)[name] == data for name, data in kept.items())
            assert not [name for name in files(out) if name.endswith(".tmp")]
            step += 7
            continue
        break
    assert step > 20


def test_a_directory_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match="file"):
        run(tmp_path / "file", 3, 2)
    with pytest.raises(BadInput, match="cannot be made"):
        run(tmp_path / "file" / "below", 3, 2)


def test_two_runs_at_one_time_are_refused(tmp_path: Path) -> None:
    with disk.locked(tmp_path, "wait"), pytest.raises(Unavailable, match="wait"):
        run(tmp_path, 3, 2)


def test_a_step_that_no_ceremony_can_take_is_refused_with_the_way_to_go(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    before = files(tmp_path)
    # Three hold a share and one may join: four seats, and 2-of-6 starts with five.
    with pytest.raises(BadInput, match=r"key default: .* 2 of 6 starts with 5 seats.* smaller steps"):
        run(tmp_path, 6, 2)
    with pytest.raises(BadInput, match="5 of 5 starts with 5 seats"):
        run(tmp_path, 5, 5)
    assert files(tmp_path) == before
    assert [seat.index for seat in run(tmp_path, 4, 2).seats] == [1, 2, 3, 4]
    assert [seat.index for seat in run(tmp_path, 6, 2).seats] == [1, 2, 3, 4, 5, 6]


def test_five_seats_with_a_threshold_of_three_and_back_are_two_steps(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    assert run(tmp_path, 5, 3).version == 2
    roster = provision(tmp_path, Plan(3, 2, lower_threshold_from=3), os.urandom).roster
    assert (roster.version, [seat.index for seat in roster.seats], roster.keys[0].threshold) == (3, [1, 2, 3], 2)


@pytest.mark.parametrize("said", [None, 2, 4])
def test_a_threshold_is_lowered_only_by_who_says_what_it_was(tmp_path: Path, said: int | None) -> None:
    run(tmp_path, 5, 3, "default:3", "other:4")
    before = files(tmp_path)
    for plan in (Plan(5, 2, lower_threshold_from=said), Plan(3, 2, lower_threshold_from=said)):
        with pytest.raises(BadInput, match=r"key default has threshold 3, .* --lower-threshold-from 3"):
            provision(tmp_path, plan, os.urandom)
        assert files(tmp_path) == before
    # It counts for a key that has this threshold, and for no other.
    both = Plan(5, 2, (parse_key("default:2"), parse_key("other:2")), lower_threshold_from=3)
    with pytest.raises(BadInput, match="key other has threshold 4"):
        provision(tmp_path, both, os.urandom)
    lowered = provision(tmp_path, Plan(5, 2, lower_threshold_from=3), os.urandom).roster
    assert [(key.key_id, key.threshold) for key in lowered.keys] == [("default", 2), ("other", 4)]
    # Said again, or left in somebody's values, it does nothing, and what is raised needs no word.
    assert provision(tmp_path, Plan(5, 2, lower_threshold_from=3), os.urandom).roster == lowered
    assert run(tmp_path, 5, 3).keys[0].threshold == 3


def test_identities_of_so_many_seats_are_not_replaced_that_the_key_would_be_lost(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    for seat in (1, 2):
        (tmp_path / f"seats/{seat}/identity.key").rename(tmp_path / f"away{seat}")
    before = files(tmp_path)
    with pytest.raises(BadInput, match=r"only 1 of the seats .* it takes 2 .* it would be lost"):
        provision(tmp_path, Plan(3, 2, replace_seats=frozenset({Index(1), Index(2)})), os.urandom)
    assert files(tmp_path) == before
    roster = provision(tmp_path, Plan(3, 2, replace_seats=frozenset({Index(1)})), os.urandom).roster
    assert roster.version == 2


def test_a_key_that_is_new_needs_no_step(tmp_path: Path) -> None:
    run(tmp_path, 3, 2)
    assert [key.threshold for key in run(tmp_path, 4, 2, "default:2", "other:4").keys] == [2, 4]
