"""Makes the keys and the roster that a system starts from, and the next roster when its numbers change.

    operator.key operator.pub   signs rosters; the private half may leave this place afterwards
    edge.key edge.pub           the API pods' key
    roster.avro                 what should be, signed by the operator key
    seats/<i>/identity.key      one replica's voice
    seats/<i>/sealing.key       what its state at rest is sealed under

Run again it keeps what exists and adds what is missing, but no second sealing key of a seat that may have used its
first. A key is never overwritten and nothing is ever deleted: a seat that leaves is dropped from the roster, its files
stay for whoever destroys them. Keys are written before the roster that names them, so that a run cut short is finished
by the next.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from common import ed25519
from common.errors import BadInput
from common.ids import Index, KeyId, parse_key_id
from common.secret import Secret
from common.trust import read_roster
from common.wire.envelope import sign_roster
from common.wire.messages import NO_SIGNATURE, Roster, RosterKey, Seat
from common.wire.shapes import MAX_SEATS
from signer_service.new_log import NewLog, log_to_be
from signer_service.protocol.machine import Entropy
from signer_service.protocol.roster_step import refuse_step
from signer_service.shell import disk
from signer_service.shell.keystore import KEY_BYTES, read_public_key, read_secret_key

PROTOCOL_VERSION: Final = 1
DEFAULT_KEY: Final = KeyId("default")
_PUBLIC_FILE: Final = 0o644


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. ``keys`` are (id, threshold) pairs; empty: ``default`` with ``threshold``."""

    signers: int
    threshold: int
    keys: tuple[tuple[KeyId, int], ...] = ()
    replace_seats: frozenset[Index] = frozenset()
    """Seats whose identity is to be made anew although the roster has one."""
    new_log: NewLog | None = None
    """The ceremony log is lost for good: another one goes on from these key records."""
    lower_threshold_from: int | None = None
    """The threshold that a key has and is to lose: without it none is lowered."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What was done: the roster in force, and a line for a person about each thing made, changed or left."""

    roster: Roster
    lines: tuple[str, ...] = field(default_factory=tuple)


def parse_key(text: str) -> tuple[KeyId, int]:
    """Return ``ID:T`` as a pair.

    Raises:
        BadInput: codes ``key`` and ``key-id``.
    """
    name, found, threshold = text.rpartition(":")
    if not found or not threshold.isascii() or not threshold.isdigit():
        raise BadInput("key", f"--key is ID:THRESHOLD, such as payments:2, not {text[:80]!r}")
    return parse_key_id(name), int(threshold)


def provision(out: Path, plan: Plan, entropy: Entropy) -> Provisioned:
    """Make what is missing in ``out`` so that it is as ``plan`` says.

    Raises:
        BadInput: the plan makes no sense, a file that is there is not what it should be, or the operator's private
            key is needed and not there. One line, with the remedy.
        Unavailable: code ``locked``: another run works on ``out``.
    """
    _check_plan(plan)
    try:
        disk.make_private_dir(out)
        with disk.locked(out, "wait for the other run to end"):
            disk.remove_leftovers(out)
            return _Run(out, plan, entropy).run()
    except OSError as error:
        raise BadInput("directory", f"{error.filename or out} cannot be used: {error.strerror}") from error


def _check_plan(plan: Plan) -> None:
    if not 2 <= plan.signers <= MAX_SEATS:
        raise BadInput("signers", f"--signers is 2 to {MAX_SEATS}, not {plan.signers}")
    _check_threshold("--threshold", plan.threshold, plan.signers)
    names = [key_id for key_id, _ in plan.keys]
    if len(set(names)) != len(names):
        raise BadInput("key", "--key names one key twice")
    for key_id, threshold in plan.keys:
        _check_threshold(f"the threshold of key {key_id}", threshold, plan.signers)
    for seat in plan.replace_seats:
        if not 1 <= seat <= plan.signers:
            raise BadInput("index", f"--replace-seat {seat}: there are seats 1 to {plan.signers}")


def _check_threshold(what: str, threshold: int, signers: int) -> None:
    if threshold < 2:
        raise BadInput("threshold", f"{what} is {threshold}; with less than 2 one replica alone would hold the key")
    if threshold > signers:
        raise BadInput("threshold", f"{what} is {threshold}, but there are only {signers} signers")


class _Run:
    """One run over one directory, under its lock."""

    def __init__(self, out: Path, plan: Plan, entropy: Entropy) -> None:
        self._out = out
        self._plan = plan
        self._entropy = entropy
        self._lines: list[str] = []

    def run(self) -> Provisioned:
        operator_public = self._operator()
        old = self._old_roster(operator_public)
        # Everything that may be refused is refused before anything is made.
        keys = self._keys(old)
        if old is not None:
            self._check_steps(old, keys)
            self._check_sealing_keys(old)
        operator_private = self._operator_private(operator_public)
        if operator_public is None:
            operator_private, operator_public = self._make_pair("operator")
        edge_keys = self._edge(old)
        seats = self._seats(old)
        log = log_to_be(old, keys, seats, self._plan.new_log)
        if log.line:
            self._lines.append(log.line)
        wanted = Roster(
            version=old.version if old else 1,
            protocol_version=old.protocol_version if old else PROTOCOL_VERSION,
            log_generation=log.generation,
            seats=seats,
            keys=keys,
            edge_keys=edge_keys,
            checkpoints=log.checkpoints,
            signature=old.signature if old else NO_SIGNATURE,
        )
        if wanted == old:
            self._lines.append(f"roster.avro: version {old.version} is up to date")
            return Provisioned(old, tuple(self._lines))
        if operator_private is None:
            raise BadInput(
                "operator-key",
                f"the roster would change, but {self._out / 'operator.key'} is not here: bring it back for this run",
            )
        raw = sign_roster(replace(wanted, version=old.version + 1 if old else 1), operator_private)
        # Read as everybody will read it: a roster that its own readers refuse must not replace one that they take.
        signed = read_roster(raw, operator_public)
        disk.write_durably(self._out / "roster.avro", raw, mode=_PUBLIC_FILE)
        self._lines.append(f"roster.avro: version {signed.version}: {_summary(signed)}")
        return Provisioned(signed, tuple(self._lines))

    def _operator(self) -> bytes | None:
        """The operator's public key, from either file; None where there is none yet."""
        private, public = self._out / "operator.key", self._out / "operator.pub"
        found = read_public_key(public, "operator public key") if public.exists() else None
        if private.exists():
            derived = ed25519.public_key(read_secret_key(private, "operator key"))
            if found is not None and found != derived:
                raise BadInput("operator-key", f"{private} is not the private half of {public}: one of them is foreign")
            if found is None:
                self._write_public("operator", derived)
            return derived
        if found is None and (self._out / "roster.avro").exists():
            raise BadInput("operator-key", f"{public} is missing, though there is a roster: bring it back")
        return found

    def _operator_private(self, public: bytes | None) -> Secret[bytes] | None:
        path = self._out / "operator.key"
        if path.exists():
            return read_secret_key(path, "operator key")
        if public is not None and not (self._out / "roster.avro").exists():
            raise BadInput("operator-key", f"{path} is not here, and there is no roster yet: bring it for this run")
        return None

    def _old_roster(self, operator_public: bytes | None) -> Roster | None:
        path = self._out / "roster.avro"
        if not path.exists() or operator_public is None:
            return None
        try:
            return read_roster(path.read_bytes(), operator_public)
        except BadInput as error:
            raise BadInput("roster", f"{path} cannot be gone on from ({error.detail}): bring the right one") from error

    def _keys(self, old: Roster | None) -> tuple[RosterKey, ...]:
        before = {key.key_id: key for key in old.keys} if old else {}
        asked = dict(self._plan.keys)
        if not asked and (not before or DEFAULT_KEY in before):
            asked = {DEFAULT_KEY: self._plan.threshold}
        kept = {key_id: replace(key, threshold=asked.get(key_id, key.threshold)) for key_id, key in before.items()}
        for key_id, key in kept.items():
            had = before[key_id].threshold
            # Fewer machines to be owned by, for good, and mostly said by who forgot to say the old number again.
            if key.threshold < had != self._plan.lower_threshold_from:
                raise BadInput(
                    "threshold",
                    f"key {key_id} has threshold {had}, and with {key.threshold} fewer owned signers are the key: "
                    f"if that is meant, say so with --lower-threshold-from {had} (chart: provision.lowerThresholdFrom)",
                )
            if key.threshold > self._plan.signers:
                raise BadInput(
                    "threshold",
                    f"key {key_id} needs {key.threshold} of {self._plan.signers} signers: "
                    f"give it another threshold with --key {key_id}:T",
                )
        new = {key_id: RosterKey(key_id, threshold, b"") for key_id, threshold in asked.items() if key_id not in kept}
        return tuple((kept | new).values())

    def _check_steps(self, old: Roster, keys: tuple[RosterKey, ...]) -> None:
        """Refuse what no ceremony could bring about, as far as two rosters show it."""
        holders = {seat.index: seat.identity_key for seat in old.seats}
        seats = map(Index, range(1, self._plan.signers + 1))
        wanted = {seat: self._identity_to_be(seat, holders) for seat in seats}
        before = {key.key_id: key.threshold for key in old.keys}
        for key in keys:
            if key.key_id in before:
                reason = refuse_step(key.key_id, before[key.key_id], holders, key.threshold, wanted)
                if reason:
                    raise BadInput("step", f"{reason} (if no key was made yet, provision into an empty directory)")

    def _check_sealing_keys(self, old: Roster) -> None:
        """Refuse to make one anew for a seat that may have sealed a share: with it nothing would open any more.

        No run that was cut short leads here: the roster names an identity only when its sealing key is on disk.
        """
        for seat in old.seats:
            folder = self._out / "seats" / str(seat.index)
            here = seat.index <= self._plan.signers and (folder / "identity.key").exists()
            if not here or (folder / "sealing.key").exists():
                continue
            if self._identity_to_be(seat.index, {}) == seat.identity_key:
                raise BadInput(
                    "sealing-key",
                    f"{folder / 'sealing.key'} is missing, and what seat {seat.index} keeps is sealed under it: bring "
                    "it back (another one opens nothing; if it is gone for good, move identity.key away as well, run "
                    f"with --replace-seat {seat.index}, give the replica an empty state directory: one seat at a time)",
                )

    def _identity_to_be(self, index: Index, before: dict[Index, bytes]) -> bytes:
        """The identity that a seat will have, empty if it is still to be made."""
        if index in self._plan.replace_seats:
            return b""
        path = self._out / "seats" / str(index) / "identity.key"
        if path.exists():
            return ed25519.public_key(read_secret_key(path, "identity key"))
        return before.get(index, b"")

    def _edge(self, old: Roster | None) -> tuple[bytes, ...]:
        private, public = self._out / "edge.key", self._out / "edge.pub"
        before = old.edge_keys if old else ()
        if private.exists():
            mine = ed25519.public_key(read_secret_key(private, "edge key"))
            if not public.exists():
                self._write_public("edge", mine)
            elif read_public_key(public, "edge public key") != mine:
                raise BadInput("edge-key", f"{private} is not the private half of {public}: one of them is foreign")
        elif public.exists():
            mine = read_public_key(public, "edge public key")
            self._lines.append("edge.key: not here, left alone; edge.pub stays in the roster")
        elif before:
            # It lives where the API pods are. A second one here would only be one more key that can be stolen.
            self._lines.append("edge.key: not here, left alone; the roster keeps its edge keys")
            return before
        else:
            _, mine = self._make_pair("edge")
        return before if mine in before else (*before, mine)

    def _seats(self, old: Roster | None) -> tuple[Seat, ...]:
        before = {seat.index: seat.identity_key for seat in old.seats} if old else {}
        disk.make_private_dir(self._out / "seats")
        seats = tuple(Seat(index, self._seat(index, before)) for index in map(Index, range(1, self._plan.signers + 1)))
        if len({seat.identity_key for seat in seats}) != len(seats):
            raise BadInput("identity-key", f"two seats in {self._out / 'seats'} have the same identity.key: remove one")
        for index in sorted(before.keys() - {seat.index for seat in seats}):
            self._lines.append(
                f"seats/{index}: no longer in the roster; its files are left: destroy them when the resharing is done"
            )
        return seats

    def _seat(self, index: Index, before: dict[Index, bytes]) -> bytes:
        folder = self._out / "seats" / str(index)
        identity, sealing = folder / "identity.key", folder / "sealing.key"
        if index in self._plan.replace_seats:
            return self._replace_seat(index, identity)
        if index in before and not identity.exists():
            # A careful person moves these to the replica and keeps none here: that must not cost the seat its identity.
            self._lines.append(
                f"seats/{index}/identity.key: not here, left alone; the roster keeps it "
                f"(--replace-seat {index} makes another)"
            )
            return before[index]
        disk.make_private_dir(folder)
        disk.remove_leftovers(folder)
        if self._create(identity):
            self._lines.append(f"seats/{index}/identity.key: made")
        if self._create(sealing):
            self._lines.append(f"seats/{index}/sealing.key: made")
        read_secret_key(sealing, "sealing key")
        public = ed25519.public_key(read_secret_key(identity, "identity key"))
        if index in before and before[index] != public:
            self._lines.append(f"seats/{index}/identity.key: another than the roster had; the seat gets a new identity")
        return public

    def _replace_seat(self, index: Index, identity: Path) -> bytes:
        if identity.exists():
            raise BadInput("identity-key", f"--replace-seat {index}: move {identity} away first; no key is overwritten")
        disk.make_private_dir(identity.parent)
        self._create(identity)
        self._create(identity.with_name("sealing.key"))
        self._lines.append(f"seats/{index}/identity.key: made anew")
        return ed25519.public_key(read_secret_key(identity, "identity key"))

    def _make_pair(self, name: str) -> tuple[Secret[bytes], bytes]:
        path = self._out / f"{name}.key"
        self._create(path)
        private = read_secret_key(path, f"{name} key")
        public = ed25519.public_key(private)
        self._write_public(name, public)
        self._lines.append(f"{name}.key, {name}.pub: made")
        return private, public

    def _write_public(self, name: str, public: bytes) -> None:
        disk.create_durably(self._out / f"{name}.pub", public, mode=_PUBLIC_FILE)

    def _create(self, path: Path) -> bool:
        return not path.exists() and disk.create_durably(path, self._entropy(KEY_BYTES))


def _summary(roster: Roster) -> str:
    keys = ", ".join(f"{key.key_id} {key.threshold}-of-{len(roster.seats)}" for key in roster.keys)
    return f"{len(roster.seats)} seats, keys: {keys}"
