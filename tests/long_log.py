"""Many epochs on a world's ceremony log, quickly, for whoever does not read them.

One fold instead of one per seat, and no proofs or sealing in what is passed over. Key records, their attestations and
all shares are true: the newest epoch is one to go on from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha512
from types import SimpleNamespace

import pytest

from common.ids import Epoch, Index, Instant, Offset
from common.wire.messages import CeremonyKind, CeremonyRecord, Erased, Open, OpenReason, Phase, PhaseVote, Verdict
from common.wire.transcript import key_record_message
from signer_service.frost import proofs
from signer_service.frost.group import ORDER, Element, Scalar, base_mul, encode_scalar
from signer_service.frost.sharing import lagrange_weights
from signer_service.protocol import ceremony_part, fold, fold_closing, fold_commit, fold_phases
from signer_service.protocol.ceremony_state import KeySecrets
from signer_service.protocol.fold_commit import expected_record, may_erase
from signer_service.protocol.log_state import Attempt, KeyLog
from tests import playbook
from tests.world import World


@contextmanager
def _unchecked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "is_signed_by", lambda *_: True)
        patch.setattr(fold_phases, "verify_proof", lambda *_: None)
        patch.setattr(fold_closing, "verify_proof", lambda *_: None)
        patch.setattr(fold_commit, "ed25519", SimpleNamespace(verify=lambda *_: True))
        patch.setattr(fold_phases, "decode_element", Element)
        patch.setattr(fold_phases, "check_sub_share", lambda *_: None)
        patch.setattr(fold_phases, "open_sealed", lambda _shared, _context, sealed: sealed[:-16])
        patch.setattr(ceremony_part, "seal", lambda _shared, _context, plain: plain + bytes(16))
        patch.setattr(ceremony_part, "mul", lambda point, _: point)
        patch.setattr(ceremony_part, "proofs", SimpleNamespace(prove=lambda *_: bytes(64)))
        yield


class FastCommittee:
    """Takes the live seats of a world at rest, and gives them back some epochs later."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._states = {Index(i): seat.state for i, seat in world.seats.items() if seat.state is not None}
        self._log = max((state.log for state in self._states.values()), key=lambda log: log.offset)
        assert self._log.offset == len(world.log) - 1
        self._mine = {seat: state.of_key(playbook.KEY) for seat, state in self._states.items()}
        threshold = self._key.current.committee.threshold if self._key.current is not None else 0
        some = tuple(self._mine)[:threshold]
        weights = lagrange_weights(some)
        self._private = sum(weights[seat] * self._mine[seat].held[-1].share.expose() for seat in some) % ORDER

    @property
    def _key(self) -> KeyLog:
        return self._log.keys[playbook.KEY]

    @property
    def _attempt(self) -> Attempt:
        assert self._key.attempt is not None
        return self._key.attempt

    def run(self, epochs: int) -> None:
        """Let so many refreshes pass; then the world's seats are where they would be."""
        with _unchecked():
            for left in reversed(range(epochs)):
                self._epoch(last=not left)
        world = self._world
        for seat, state in self._states.items():
            secrets = {**state.secrets, playbook.KEY: self._mine[seat]}
            now = {playbook.KEY: Instant(world.now)}
            sim = world.seats[int(seat)]
            sim.state = replace(state, log=self._log, secrets=secrets, committed=now)
            sim.next_offset = len(world.log)
        world._presence()

    def _say(self, seat: Index, record: CeremonyRecord) -> None:
        raw = playbook.say(seat, record, self._log)
        self._world.log.append(raw)
        self._log = fold.fold(self._log, Offset(self._log.offset + 1), raw, self._world.trust).state

    def _epoch(self, *, last: bool) -> None:
        entropy, before = self._world.entropy, self._key.epoch
        assert self._log.roster is not None
        version = self._log.roster.version
        for seat in self._mine:
            nonce = entropy(32)
            opening = Open(playbook.KEY, CeremonyKind.RESHARE, before, 1, version, OpenReason.SCHEDULE, nonce, b"")
            if self._key.attempt is None:
                self._say(seat, opening)
        parts = {seat: ceremony_part._announce(self._attempt, seat, mine, entropy) for seat, mine in self._mine.items()}
        for seat, part in parts.items():
            assert part.announce is not None
            self._say(seat, part.announce)
        for seat in self._mine:
            if self._attempt.phase is Phase.ANNOUNCE:
                self._say(seat, PhaseVote(self._attempt.open_id, Phase.ANNOUNCE))
        for seat, mine in self._mine.items():
            deal = ceremony_part._deal(self._attempt, seat, mine, entropy)
            assert deal is not None
            self._say(seat, deal)
        for seat in self._mine:
            self._say(seat, Verdict(self._attempt.open_id, ()))
        for seat, part in parts.items():
            parts[seat] = staged = ceremony_part._stage(self._attempt, seat, part, entropy, [])
            assert staged.ready is not None
            self._say(seat, staged.ready)
        record = expected_record(self._log, self._attempt)
        assert record is not None
        self._say(min(self._mine), replace(record, signature=self._sign(key_record_message(record), record.public_key)))
        for seat, part in parts.items():
            assert part.ready is not None
            assert part.staged is not None
            # Those of the newest epoch are read by who comes back.
            with pytest.MonkeyPatch.context() as patch:
                if last:
                    patch.setattr(ceremony_part, "proofs", proofs)
                seen = ceremony_part._committed(seat, part.open_id, part.staged, part.ready, entropy)
            self._say(seat, seen)
        commit = self._key.current
        assert commit is not None
        assert commit.epoch == before + 1
        for seat, mine in self._mine.items():
            fresh = parts[seat].staged
            assert fresh is not None
            held = (fresh,) if may_erase(commit) else (mine.held[0], fresh)
            self._mine[seat] = KeySecrets(playbook.KEY, held, None, ever_held=True)
            if may_erase(commit):
                self._say(seat, Erased(playbook.KEY, Epoch(before)))

    def _sign(self, message: bytes, public_key: bytes) -> bytes:
        """As no committee signs: with the key itself, which only a test has."""
        nonce = Scalar(int.from_bytes(self._world.entropy(64), "little") % ORDER)
        point = base_mul(nonce)
        challenge = int.from_bytes(sha512(point + public_key + message).digest(), "little") % ORDER
        return bytes(point) + encode_scalar(Scalar((nonce + challenge * self._private) % ORDER))
