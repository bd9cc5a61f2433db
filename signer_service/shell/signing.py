"""The two signing machines on the event loop: events in, what they want sent into the outbox, ticks when they ask.

They share a loop and a turn, so that one record to a seat carries what both have to say; what the coordinator is told
within a turn it takes as one step, so that it begins one round where it could have begun many. Neither has anything to
make durable: nonces must not survive a crash, and requests come again.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import TypeAlias

from common.ids import Instant
from common.wire.messages import NonceRequest, SignPackage
from signer_service.protocol import coordinator, participant
from signer_service.protocol.coordinator import Batch, CoordinatorState, Single
from signer_service.protocol.machine import (
    Note,
    PeerArrived,
    PeersChanged,
    RequestArrived,
    RequestsDropped,
    Tick,
)
from signer_service.protocol.participant import ParticipantState
from signer_service.protocol.view import ViewChanged
from signer_service.shell.outbox import Outbox
from signer_service.shell.sources import Sources

Event: TypeAlias = RequestArrived | RequestsDropped | PeerArrived | PeersChanged | ViewChanged


class Alarm:
    """One timer of the loop, set by Unix time: fires ``ring`` at or after the latest ``set``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sources: Sources, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._sources = sources
        self._ring = ring
        self._at: Instant | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: Instant | None) -> None:
        """Ring at ``at`` and not before; None: not at all."""
        if at == self._at:
            return
        self.cancel()
        self._at = at
        if at is not None:
            delay = max(0, at - self._sources.now()) / 1000
            self._handle = self._loop.call_later(delay, self._fire)

    def cancel(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._at = None

    def _fire(self) -> None:
        self._handle = self._at = None
        self._ring()


class Signing:
    """Feeds participant and coordinator. An exception out of either is a bug and ends the process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sources: Sources,
        participant_state: ParticipantState,
        coordinator_state: CoordinatorState,
        outbox: Outbox,
        tell: Callable[[tuple[Note, ...]], None],
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._sources = sources
        self._pending: list[Single] = []
        self._participant = participant_state
        self._coordinator = coordinator_state
        self._outbox = outbox
        self._tell = tell
        self._on_bug = on_bug
        self.on_step: Callable[[], None] = _nothing
        """Called after each step of the coordinator: it may have let go of items that nobody is answered for."""
        self._alarms = {
            "participant": Alarm(loop, sources, lambda: self._guarded(self._tick_participant)),
            "coordinator": Alarm(loop, sources, lambda: self._guarded(self._tick_coordinator)),
        }

    @property
    def participant(self) -> ParticipantState:
        """As of its last step."""
        return self._participant

    @property
    def coordinator(self) -> CoordinatorState:
        """As of its last step: what is in flight, whose nonces are left."""
        return self._coordinator

    def feed(self, event: Event) -> None:
        """Hand ``event`` to the machine, or machines, that it concerns: to the coordinator at the end of this turn."""
        if isinstance(event, PeerArrived):
            if isinstance(event.message, SignPackage | NonceRequest):
                self._guarded(lambda: self._step_participant(event))
                return
        elif isinstance(event, PeersChanged | ViewChanged):
            # The participant first: what the coordinator asks of its own seat must find it ready.
            self._guarded(lambda: self._step_participant(event))
        if not self._pending:
            self._loop.call_soon(self._turn)
        self._pending.append(event)

    def running(self, partitions: Collection[int]) -> int:
        """Sessions under way for records of these partitions."""
        return sum(
            any(record.origin.partition in partitions for record in session.work.waiting)
            for session in self._coordinator.sessions.values()
        )

    def stop(self) -> None:
        """No more ticks."""
        for alarm in self._alarms.values():
            alarm.cancel()

    def _turn(self) -> None:
        events, self._pending = self._pending, []
        self._guarded(lambda: self._step_coordinator(events[0] if len(events) == 1 else Batch(tuple(events))))

    def _step_participant(self, event: PeerArrived | PeersChanged | ViewChanged | Tick) -> None:
        done = participant.step(self._participant, event, self._sources.now(), self._sources.entropy)
        self._participant = done.state
        self._alarms["participant"].set(done.wake_at)
        self._tell(done.notes)
        if done.send:
            self._outbox.put(done.send)

    def _step_coordinator(self, event: Single | Batch) -> None:
        done = coordinator.step(self._coordinator, event, self._sources.now(), self._sources.entropy)
        self._coordinator = done.state
        self._alarms["coordinator"].set(done.wake_at)
        self._tell(done.notes)
        if done.send:
            self._outbox.put(done.send)
        self.on_step()

    def _tick_participant(self) -> None:
        self._step_participant(Tick())

    def _tick_coordinator(self) -> None:
        # What has come and not been taken yet is taken in this turn, and with it what is due: the answer before the
        # time-out that it missed only because we were busy.
        if not self._pending:
            self._step_coordinator(Tick())

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as bug:  # noqa: BLE001 - no input may make a machine raise: the process ends
            self._on_bug(bug)


def _nothing() -> None:
    pass
