"""Which answer ends which request: the one place where the outcome of a request is decided. No clock, no IO.

Rules
    1. A request that was opened is completed exactly once: by a signature that verifies, by refusals, or by its
       deadline.
    2. A signature that verifies wins at once, whoever sent it. One that does not is counted, and changes nothing: else
       anybody who can write to the reply topic could end requests.
    3. A refusal counts only from a seat of the committee, once per seat. It never completes a request while another
       send is open; it does when so many seats have refused that fewer than t are left, or all that can be asked, or
       all that were asked and no time is left to ask another. Fewer seats that lie cannot refuse in the name of the
       others.
    4. A request is sent again, to another seat, only when the seat that has it is suspected (silent, or started again)
       or has refused, when nobody reads its partition any more, when the seat answers nothing at all (``silence``),
       or when half of its time is over and others take much less (``usual``); else a slow seat is left to it. What is
       pending at a suspected, draining or mute seat or in a dark partition is moved at once; otherwise a re-send takes
       a token of the budget. Each first send earns a tenth of one, each second ten: a seat that refuses all it gets
       may draw every other request of a slow stream, and must not fail one.
    5. An answer for another start of this pod is foreign, for a completed request a duplicate or late, for any other
       unknown: counted and dropped.

    state of a request    what moves it on
    ------------------    -------------------------------------------------------------------------------------------
    queued                ``sent`` (to a seat's partition) -> at a seat; ``put_back`` -> waiting
    at a seat             Signed -> completed; Refused from there -> waiting, or completed; seat suspected or mute, or
                          its partition dark -> queued; much later than others and half of its time over, once ->
                          queued, and still at the seat
    waiting               a token of the budget -> queued; a late Signed -> completed; refused by all -> completed
    (any of these)        its deadline, or ``abandon`` -> completed
"""

import heapq
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from common.errors import Bug
from common.ids import BootId, Index, RecordId, RequestId
from common.wire.messages import Accepted, Mode, MsgSigned, RefusalCode, Refused, Signed, SignItem
from rest_api.backlog import Backlog
from rest_api.pending import Completed, End, Pending, Resend, Send, Step, View
from rest_api.silence import Silence
from rest_api.usual import Usual

__all__ = ["Completed", "Correlation", "End", "Resend", "Step", "View"]

NOTHING_BEGINS_S: Final = 0.2
"""With less left to the deadline no signer begins a session."""
BUDGET_PER_SEND: Final = 0.1
BUDGET_PER_S: Final = 10.0
BUDGET_AT_START: Final = 10.0
BUDGET_MOST: Final = 100.0
DEFAULT_REMEMBERED: Final = 16_384


Verify = Callable[[SignItem, Signed], bool]


class Correlation:
    """The table of pending requests of one start of one pod.

    Args:
        verify: Whether a Signed is a valid signature of the item's message under the believed key.
        remembered: How many completed requests are remembered, to tell a duplicate from an unknown answer.
    """

    def __init__(self, instance_id: BootId, verify: Verify, remembered: int = DEFAULT_REMEMBERED) -> None:
        self._instance_id = instance_id
        self._verify = verify
        self._remembered = remembered
        self._pending: dict[RequestId, Pending] = {}
        self._waiting: dict[RequestId, str] = {}
        self._ended: dict[RequestId, str] = {}
        self._deadlines: list[tuple[float, RequestId]] = []
        self._budget = BUDGET_AT_START
        self._earned_at: float | None = None
        self._now = 0.0
        self._silence = Silence()
        self.usual = Usual()
        self._backlog = Backlog()
        self.avoid: frozenset[Index] = frozenset()
        """Seats that answer nothing: to be asked only when nobody else can be."""
        self.in_flight: Counter[Index] = Counter()
        """Open items per seat: the load by which a seat is chosen."""

    def __len__(self) -> int:
        """How many requests are pending."""
        return len(self._pending)

    def wait_s(self) -> float:
        """How long an item that came now would wait for what is before it; 0 while that is not known."""
        return self._backlog.wait_s(len(self._pending))

    # --- requests ----------------------------------------------------------------------------------------------------

    def open(self, item: SignItem, expires_at: float) -> None:
        """Take a new request, before anything of it is sent. ``expires_at`` is on the clock of ``scan``'s ``now``.

        Raises:
            Bug: the request id is pending already.
        """
        if item.request_id in self._pending:
            raise Bug("a request id was used twice")
        self._pending[item.request_id] = Pending(item, expires_at)
        heapq.heappush(self._deadlines, (expires_at, item.request_id))
        self._budget = min(BUDGET_MOST, self._budget + BUDGET_PER_SEND)

    def sent(
        self, request_id: RequestId, record_id: RecordId, partition: int, seat: Index | None, boot: BootId | None
    ) -> bool:
        """The request is about to be produced to ``partition``, which ``seat`` reads (``None``: nobody claims it).

        Returns:
            Whether it is still wanted: if not, it must not be produced.
        """
        pending = self._pending.get(request_id)
        if pending is None:
            return False
        pending.queued = False
        pending.sends.append(Send(record_id, partition, seat, boot))
        if seat is not None:
            self._take(seat)
        return True

    def put_back(self, request_id: RequestId) -> None:
        """There was nobody to re-send it to: it waits for the next ``scan``."""
        pending = self._pending.get(request_id)
        if pending is not None:
            pending.queued = False
            self._waiting[request_id] = "suspected"

    def unsent(self, request_id: RequestId, record_id: RecordId) -> Step:
        """That record was certainly not produced. Ends a request that was never sent before; another waits."""
        step = Step()
        pending = self._pending.get(request_id)
        if pending is None:
            return step
        for send in pending.sends:
            if send.record_id == record_id and send.open:
                self._close(send)
        if len(pending.sends) == 1:
            self._complete(pending, End.UNSENT, step)
        elif not any(send.open for send in pending.sends):
            self._waiting[request_id] = "suspected"
        return step

    def abandon(self) -> Step:
        """The pod ends: whatever is pending is completed so."""
        step = Step()
        for pending in list(self._pending.values()):
            self._complete(pending, End.ABANDONED, step)
        return step

    # --- answers -----------------------------------------------------------------------------------------------------

    def answered(self, answer: MsgSigned, seat: Index | None, view: View) -> Step:
        """An answer was read. ``seat``: the committee seat whose envelope it came in; ``None``: nobody we know."""
        step = Step()
        if answer.instance_id != self._instance_id:
            step.counts["foreign"] += len(answer.outcomes)
            return step
        for outcome in answer.outcomes:
            pending = self._pending.get(outcome.request_id)
            if pending is None:
                step.counts[self._ended.get(outcome.request_id, "unknown")] += 1
                continue
            match outcome.result:
                case Signed() as signed:
                    if pending.item.mode is Mode.SIGN and self._verify(pending.item, signed):
                        step.counts["signed"] += 1
                        self._heard(seat)
                        self.usual.answered(pending.age(self._now), self._now)
                        self._complete(pending, signed, step)
                    else:
                        step.counts["invalid"] += 1
                case Accepted() as accepted:
                    if seat is None:
                        step.counts["foreign"] += 1
                    elif pending.item.mode is Mode.REFRESH and accepted.key_id == pending.item.key_id:
                        step.counts["signed"] += 1
                        self._complete(pending, accepted, step)
                    else:
                        step.counts["invalid"] += 1
                case Refused() as refused:
                    kind = self._note_refusal(pending, answer.record_id, seat, refused)
                    step.counts[kind] += 1
                    if kind == "refused":
                        self._heard(seat)
                        self._settle(pending, view, step)
        return step

    def _heard(self, seat: Index | None) -> None:
        if seat is not None:
            self._silence.answered(seat, self._now)

    def _note_refusal(self, pending: Pending, record_id: RecordId, seat: Index | None, refused: Refused) -> str:
        """Note it if it counts, and return the kind under which it is counted."""
        if seat is None:
            return "foreign"
        if seat in pending.refused:
            return "duplicate"
        pending.refused[seat] = refused
        for send in pending.sends:
            # Only for its own send: a lying seat must not close what another seat is working on.
            if send.open and send.record_id == record_id and send.seat in (None, seat):
                self._close(send)
        return "refused"

    def _settle(self, pending: Pending, view: View, step: Step) -> None:
        """After a refusal: complete, or ask for another seat, or wait for the sends that are open."""
        if pending.queued or not pending.refused or any(send.open for send in pending.sends):
            return
        unwilling = pending.refused.keys()
        key_id = pending.item.key_id
        # One seat that accepts a refresh is enough for it. Of t that will not, each has a reason of its own.
        blocking = view.threshold(key_id) if pending.item.mode is Mode.REFRESH else view.blocking(key_id)
        if len(unwilling) >= blocking or not view.live() - unwilling:
            self._complete(pending, _judgement(pending.refused, blocking), step)
        elif pending.expires_at - self._now < NOTHING_BEGINS_S and (refusal := _refusal_of_all(pending)):
            self._complete(pending, refusal, step)
        elif pending.item.request_id not in self._waiting:
            self._waiting[pending.item.request_id] = "refused"
            self._ask_again(pending, "refused", view, step)

    # --- time --------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> Step:
        """Complete what is past its deadline. To be called often."""
        step = Step()
        if self._earned_at is not None:
            self._budget = min(BUDGET_MOST, self._budget + BUDGET_PER_S * max(0.0, now - self._earned_at))
        self._earned_at = self._now = now
        self._backlog.look(len(self._pending), now)
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request_id = heapq.heappop(self._deadlines)
            pending = self._pending.get(request_id)
            if pending is not None:
                self._complete(pending, _refusal_of_all(pending) or End.DEADLINE, step)
        return step

    def scan(self, view: View) -> Step:
        """Look where every open send stands now: move what is at a suspected seat, follow partitions to new owners."""
        step = Step()
        live = view.live()
        for seat in self._silence.owing():
            if seat not in live:
                self._silence.excuse(seat, self._now)
        self.avoid = self._silence.mute(self._now)
        stands_out = self.usual.stands_out_after(self._now)
        for pending in list(self._pending.values()):
            if pending.queued:
                continue
            for send in pending.sends:
                if send.open:
                    self._follow(pending, send, live, view, step)
            self._settle(pending, view, step)
            self._hurry(pending, stands_out, live, view, step)
        for request_id, reason in list(self._waiting.items()):
            self._ask_again(self._pending[request_id], reason, view, step)
        return step

    def _follow(self, pending: Pending, send: Send, live: AbstractSet[Index], view: View, step: Step) -> None:
        owner = view.owner(send.partition)
        if send.seat is not None and send.boot is not None and view.suspected(send.seat, send.boot):
            elsewhere = live - self._tried(pending, view)
            if elsewhere and not pending.queued:
                reason = "suspected" if owner is None or owner[0] != send.seat else "rebooted"
                self._close(send)
                self._queue(pending, reason, view, step)
            return
        if send.seat in self.avoid and not pending.queued and live - self._tried(pending, view) - self.avoid:
            self._close(send)
            self._queue(pending, "mute", view, step)
            return
        if owner is not None and owner != (send.seat, send.boot):
            # The group gave the partition, and with it the record, to another seat.
            if send.seat is not None:
                self._let_go(send.seat)
            send.seat, send.boot = owner
            self._take(owner[0])
            if send.seat in pending.refused:
                self._close(send)
        elif owner is None and not pending.queued and view.dark(send.partition) and live - pending.refused.keys():
            # Its seat is well and has given the partition up, and the group has not given it to anybody since.
            self._close(send)
            send.seat = send.boot = None
            self._queue(pending, "unread", view, step)

    def _hurry(self, pending: Pending, stands_out: float, live: AbstractSet[Index], view: View, step: Step) -> None:
        """Ask another seat beside the first when half of the time is over, once: the first may swallow some of all."""
        item = pending.item
        if (
            not pending.queued
            and item.mode is Mode.SIGN
            and len(pending.sends) == 1
            and pending.sends[0].open
            and pending.age(self._now) >= max(pending.time_s / 2, stands_out)
            and self._budget >= 1
            and live - self._tried(pending, view) - self.avoid
        ):
            self._budget -= 1
            self._queue(pending, "overdue", view, step)

    def _tried(self, pending: Pending, view: View) -> frozenset[Index]:
        """Seats that need not be asked: they refused, or they have it and are well."""
        asked = (
            send.seat
            for send in pending.sends
            if send.seat is not None and send.boot is not None and not view.suspected(send.seat, send.boot)
        )
        return frozenset(pending.refused) | frozenset(asked)

    def _queue(self, pending: Pending, reason: str, view: View, step: Step) -> None:
        pending.queued = True
        self._waiting.pop(pending.item.request_id, None)
        step.resend.append(Resend(pending.item, self._tried(pending, view), reason))

    def _ask_again(self, pending: Pending, reason: str, view: View, step: Step) -> None:
        """Queue a request that waits, if there is another seat to ask and the budget allows it."""
        if not view.live() - self._tried(pending, view):
            return
        # A seat that goes away refuses all it has: moving that is bounded, as it is for one that is silent.
        if reason != "suspected" and not any(view.draining(seat) for seat in pending.refused):
            if self._budget < 1:
                return
            self._budget -= 1
        self._queue(pending, reason, view, step)

    # --- ends --------------------------------------------------------------------------------------------------------

    def _close(self, send: Send) -> None:
        send.open = False
        if send.seat is not None:
            self._let_go(send.seat)

    def _take(self, seat: Index) -> None:
        self.in_flight[seat] += 1
        self._silence.asked(seat, self._now)

    def _let_go(self, seat: Index) -> None:
        self.in_flight[seat] -= 1
        if not self.in_flight[seat]:
            self._silence.settled(seat)

    def _complete(self, pending: Pending, result: Signed | Accepted | Refused | End, step: Step) -> None:
        request_id = pending.item.request_id
        # Refused for want of room, a request was not worked off: that would make the queue look short.
        if not isinstance(result, End) and not (isinstance(result, Refused) and result.code is RefusalCode.OVERLOADED):
            self._backlog.answered()
        del self._pending[request_id]
        self._waiting.pop(request_id, None)
        for send in pending.sends:
            if send.open:
                self._close(send)
        self._ended[request_id] = "late" if isinstance(result, End) else "duplicate"
        while len(self._ended) > self._remembered:
            del self._ended[next(iter(self._ended))]
        step.completed.append(Completed(pending.item, result))


def _refusal_of_all(pending: Pending) -> Refused | None:
    """What to say when the time is over: that nobody signed it, if each seat that it was sent to has said so."""
    if pending.queued or not pending.sends or any(send.seat not in pending.refused for send in pending.sends):
        return None
    # Others were not asked, and might have signed: nobody can say "never".
    return _judgement(pending.refused, len(pending.refused) + 1)


def _judgement(refused: dict[Index, Refused], blocking: int) -> Refused:
    """The refusal to show: the commonest code, final only if ``blocking`` seats say so: a few cannot say "never"."""
    votes = Counter(each.code for each in refused.values())
    most = max(votes.values())
    leading = [each for each in refused.values() if votes[each.code] == most]
    # Among equals the one that claims less.
    chosen = min(leading, key=lambda each: (not each.retryable, each.code.value))
    final = sum(each.code is chosen.code and not each.retryable for each in refused.values()) >= blocking
    return Refused(chosen.code, chosen.detail, not final)
