"""A committee whose seats have little CPU: each does one thing after the other, and everything takes its time.

The network is fair and fast; what is slow is work. What a seat computes leaves it when it is done computing, and what
comes meanwhile waits. So a coordinator that asks for the same thing twice slows everybody down, itself included.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from common.errors import BadInput
from common.ids import Index, Instant
from common.wire import codec, envelope
from common.wire.messages import NonceBatch, NonceRequest, Share, SignatureShares, Signed, SignPackage
from signer_service.protocol import coordinator, participant
from signer_service.protocol.coordinator import Batch, Single
from signer_service.protocol.machine import Answer, Outgoing, PeerArrived, RequestArrived, Sender, Tick, ToPeer
from tests.protocol.signing_world import Process, World, check_signature, peer_topic

MOST_EVENTS = 64
"""What a process takes up in one turn."""


@dataclass(frozen=True)
class Costs:
    """Milliseconds of CPU."""

    share: float
    complete: float
    """The coordinator's own share, the sum and its verification."""
    grant: float
    commitment: float
    """To check one that arrived."""
    record: float = 0.5

    def signature(self, threshold: int) -> float:
        """All that one signature needs of everybody, without any waste."""
        return (threshold - 1) * (self.share + self.grant + self.commitment) + self.complete


@dataclass
class Work:
    """What one seat has to do, and until when it is at it."""

    inbox: deque[Single] = field(default_factory=deque)
    busy: bool = False
    ahead_ms: float = 0.0
    """What was computed beyond whole milliseconds."""


@dataclass
class BusyWorld(World):
    costs: Costs = Costs(2, 3, 0.5, 1)
    work: dict[Index, Work] = field(default_factory=dict)

    @property
    def started(self) -> int:
        """Sessions begun by anybody."""
        return sum(process.coordinator.next_session - 1 for process in self.up.values())

    def capacity_per_s(self) -> float:
        """Signatures that all seats together can make in a second."""
        return self.n * 1_000 / self.costs.signature(self.t)

    def signed_in_time(self, spare_ms: int = 0) -> int:
        """How many signatures came at least so long before their deadline; each is checked."""
        found = 0
        for at, _, request, outcome in self.answers:
            item = next(item for item in request.items if item.request_id == outcome.request_id)
            if isinstance(outcome.result, Signed):
                check_signature(self.committee.public.group_key, item.message, outcome.result.signature)
                found += at <= item.deadline_ms - spare_ms
        return found

    def _feed(self, process: Process, event: coordinator.Event) -> None:
        if isinstance(event, RequestArrived | Tick):
            process.wake_at = None
            self._give(process, event)
        else:
            super()._feed(process, event)

    def deliver(self, seat: Index, raw: bytes) -> None:
        try:
            opened = envelope.open_envelope(raw, peer_topic(seat), self._keys_of)
            message = codec.decode_peer(opened.payload)
        except BadInput:
            self.refused_envelopes += 1
            return
        self._give(self.up[seat], PeerArrived(Sender(Index(opened.index), opened.boot_id), message, raw))

    def _give(self, process: Process, event: Single) -> None:
        work = self.work.setdefault(process.seat, Work())
        work.inbox.append(event)
        if not work.busy:
            work.busy = True
            self._later(0, "action", lambda: self._turn(process, work))

    def _turn(self, process: Process, work: Work) -> None:
        now = Instant(self.now)
        event = work.inbox.popleft()
        if isinstance(event, PeerArrived) and isinstance(event.message, NonceRequest | SignPackage):
            asked = participant.step(process.participant, event, now, self.dice.entropy)
            process.participant, send = asked.state, asked.send
            cost = self.costs.record + self._cost((), send)
        else:
            events = [event]
            while work.inbox and len(events) < MOST_EVENTS and not _for_participant(work.inbox[0]):
                events.append(work.inbox.popleft())
            told = coordinator.step(process.coordinator, Batch(tuple(events)), now, self.dice.entropy)
            process.coordinator, send, process.wake_at = told.state, told.send, told.wake_at
            self.notes += [(self.now, process.seat, note) for note in told.notes]
            cost = self.costs.record * sum(not isinstance(each, Tick) for each in events) + self._cost(events, send)
        work.ahead_ms += cost
        takes = math.floor(work.ahead_ms)
        work.ahead_ms -= takes

        def done() -> None:
            self._do(process, send)
            if work.inbox:
                self._turn(process, work)
            else:
                work.busy = False

        self._later(takes, "action", done)

    def _cost(self, events: Iterable[Single], send: Iterable[Outgoing]) -> float:
        cost = 0.0
        for event in events:
            if isinstance(event, PeerArrived) and isinstance(event.message, NonceBatch):
                cost += self.costs.commitment * sum(len(grant.commitments) for grant in event.message.grants)
        for each in send:
            match each:
                case ToPeer(message=SignatureShares(answers=answers)):
                    cost += self.costs.share * sum(isinstance(answer, Share) for answer in answers)
                case ToPeer(message=NonceBatch(grants=grants)):
                    cost += self.costs.grant * sum(len(grant.commitments) for grant in grants)
                case Answer(outcomes=outcomes):
                    cost += self.costs.complete * sum(isinstance(outcome.result, Signed) for outcome in outcomes)
        return cost


def _for_participant(event: Single) -> bool:
    return isinstance(event, PeerArrived) and isinstance(event.message, NonceRequest | SignPackage)
