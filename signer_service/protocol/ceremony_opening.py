"""When this seat signs an Open: only when it sees the reason itself, and never two for a key within ``min_interval``.

So nobody alone, and no caller of the API, can have ceremonies opened one after another to burn the nonce pools.
"""

from dataclasses import replace
from functools import lru_cache
from hashlib import sha256

from common.errors import BadInput
from common.ids import EdgeKeyId, Epoch, Index, Instant, KeyId
from common.wire.messages import MAX_DEADLINE_MS, Mode, MsgToSign, Open, OpenReason, RefusalCode, Roster
from common.wire.signatures import check_request, edge_key_id
from signer_service.protocol.ceremony_agenda import Agenda
from signer_service.protocol.ceremony_part import held_now
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.fold import expected_open
from signer_service.protocol.heal_open import evidence, healed
from signer_service.protocol.log_state import KeyLog, dealing_committee, newest_committee
from signer_service.protocol.log_wire import LogWire
from signer_service.protocol.machine import Entropy
from signer_service.protocol.roster_step import refuse_step

_REQUEST_AGE_MS = 60_000
"""How much older than any deadline a refresh request may be: other seats see it in the log, and clocks differ."""


def settle_opens(state: CeremonyState, todo: Agenda, entropy: Entropy) -> CeremonyState:
    """Make the Opens that are due, and forget those that no longer are."""
    opens: dict[KeyId, Open] = {}
    opened = dict(state.opened)
    for key in state.log.keys.values():
        made = _open(state, key, todo, entropy)
        if made is not None:
            if made is not state.opens.get(key.key_id):
                opened[key.key_id] = todo.now
            opens[key.key_id] = made
    if opens == state.opens:
        return state
    return replace(state, opens=opens, opened=opened)


def _open(state: CeremonyState, key: KeyLog, todo: Agenda, entropy: Entropy) -> Open | None:
    expected, committee = expected_open(state.log, key.key_id), dealing_committee(state.log, key.key_id)
    if not state.may_speak or expected is None or committee is None or state.seat not in committee.identities:
        return None
    if out_of_reach(state, key):
        return None
    # One for each seat to heal and one for any other reason may stand beside each other: they are counted apart.
    said = {healed(each) for seat, each in key.opens if seat == state.seat}
    kind, from_epoch, attempt, version = expected
    made = state.opens.get(key.key_id)
    waits = made is not None and healed(made) not in said and healed(made) in {None, *key.heals}
    if made is not None and waits and (made.kind, made.from_epoch, made.attempt, made.roster_version) == expected:
        return made
    opened = state.opened.get(key.key_id)
    if opened is not None and not todo.due(opened + state.timing.min_interval_ms):
        return None
    reason = _reason(state, key, todo, said)
    if reason is None:
        return None
    if isinstance(reason, tuple):
        return Open(key.key_id, kind, from_epoch, attempt, version, reason[0], entropy(32), reason[1])
    held = held_now(key.current, state.seat, state.of_key(key.key_id)) if key.current is not None else None
    if held is None:
        return None
    bare = Open(key.key_id, kind, from_epoch, attempt, version, OpenReason.HEAL, entropy(32), b"")
    return replace(bare, evidence=evidence(bare, state.seat, reason, held, entropy))


def _reason(
    state: CeremonyState, key: KeyLog, todo: Agenda, said: set[Index | None]
) -> tuple[OpenReason, bytes] | Index | None:
    """Why this seat opens now, and the evidence, or whom to heal; ``said`` tells of its Opens that stand (None: for
    another reason than to heal)."""
    if key.current is None and state.of_key(key.key_id).ever_held:
        return None  # The key exists: whatever the log says, this seat held a share of it.
    if key.ended and not todo.due(_ended_at(state, key, todo.now) + _back_off_ms(state, key.ended)):
        return None
    heal = _heal_due(state, key, todo)
    # After each failure the other way round: who is to be healed may be why it fails.
    if heal is not None and heal not in said and (key.ended % 2 == 0 or None in said):
        return heal
    if None in said:
        return None
    if key.current is None:
        return (OpenReason.RETRY if key.ended else OpenReason.NO_KEY), b""
    if key.ended:
        return OpenReason.RETRY, b""
    newest = newest_committee(state.log, key.key_id)
    if newest is not None and newest != key.current.committee:
        return OpenReason.ROSTER, b""
    request = _request(state, key, todo.now)
    if request:
        return OpenReason.REQUEST, request
    if todo.due(next_due(state, key)):
        return OpenReason.SCHEDULE, b""
    return None


def _ended_at(state: CeremonyState, key: KeyLog, now: Instant) -> Instant:
    epoch, number, at = state.soft.ended.get(key.key_id, (Epoch(0), 0, now))
    return at if (epoch, number) == (key.epoch, key.ended) else now


def _back_off_ms(state: CeremonyState, ended: int) -> int:
    return min(state.timing.patience_ms << min(ended - 1, 16), state.timing.patience_max_ms)


def _heal_due(state: CeremonyState, key: KeyLog, todo: Agenda) -> Index | None:
    """The seat to heal now: its request has stood unopposed for long enough, and it can be proved that we hold a share.

    Several are taken in turns, with each epoch and every other attempt: one bad seat among them, that asks first each
    time or asks and goes silent, must not keep the others from being healed.
    """
    if key.current is None or held_now(key.current, state.seat, state.of_key(key.key_id)) is None:
        return None
    newest = newest_committee(state.log, key.key_id)
    stood = state.soft.heals.get(key.key_id, {})
    due = [
        seat
        for seat, offset in sorted(key.heals.items(), key=lambda each: each[1])
        if newest is not None
        and seat in newest.identities
        and (since := stood.get(seat, (offset, None))[1]) is not None
        and todo.due(since + state.timing.heal_delay_ms)
    ]
    return due[(key.epoch + key.ended // 2) % len(due)] if due else None


def opposed(state: CeremonyState, key: KeyLog, seat: Index) -> bool:
    """Whether the seat's own beats contradict a request to heal it: those of any process that speaks for it."""
    peer = state.soft.live.get(seat)
    return peer is not None and key.epoch in {peer.epochs.get(key.key_id), peer.disputed.get(key.key_id)}


def next_due(state: CeremonyState, key: KeyLog) -> Instant:
    """When this seat finds a refresh due: the interval after the commit, up to a tenth less or more, never the same."""
    interval = state.timing.refresh_interval_ms
    seed = sha256(b"%s/%d/%d" % (key.key_id.encode(), key.epoch, state.seat)).digest()
    jitter = interval * (int.from_bytes(seed[:4], "big") % 2001 - 1000) // 10_000
    return Instant(state.committed.get(key.key_id, Instant(0)) + interval + jitter)


# --- refresh requests ------------------------------------------------------------------------------------------------


def edge_keys(state: CeremonyState) -> dict[EdgeKeyId, bytes]:
    """Edge keys of the newer of roster file and log: a broker cannot withhold a revocation."""
    roster = newer_roster(state)
    return {edge_key_id(key): key for key in roster.edge_keys} if roster is not None else {}


def newer_roster(state: CeremonyState) -> Roster | None:
    """The newer of the roster file and the log's roster."""
    file, log = state.soft.roster, state.log.roster
    if file is None or log is None:
        return file or log
    return file if file.version > log.version else log


def check_refresh(state: CeremonyState, key_id: KeyId, raw: bytes, now: Instant) -> None:
    """Return if ``raw`` is an API pod's request to refresh ``key_id``, and recent.

    Raises:
        BadInput: it is not.
    """
    request = _vouched_for(state.trust.wire, tuple(edge_keys(state).items()), raw)
    if isinstance(request, tuple):
        raise BadInput(*request)
    wanted = [item for item in request.items if item.mode is Mode.REFRESH and item.key_id == key_id]
    if not wanted:
        raise BadInput("no-refresh", "the request asks for no refresh of this key")
    # One that is older than the epoch has had its refresh: shown again, it would burn another set of nonces.
    since = max(now - MAX_DEADLINE_MS - _REQUEST_AGE_MS, state.committed.get(key_id, 0))
    if all(not since <= item.created_ms <= now + _REQUEST_AGE_MS for item in wanted):
        raise BadInput("expired", "the refresh request is too old")


@lru_cache(maxsize=16)
def _vouched_for(wire: LogWire, keys: tuple[tuple[EdgeKeyId, bytes], ...], raw: bytes) -> MsgToSign | tuple[str, str]:
    """The request, or why not (code, detail).

    Remembered: an Open stands in the log until others come, and half a megabyte of it would be read at each step. An
    exception is not remembered: by its traceback it keeps every caller's variables, and so the shares of that moment.
    """
    try:
        request = wire.decode_request(raw)
        check_request(raw, request, dict(keys))
    except BadInput as bad:
        return bad.code, bad.detail
    return request


def _request(state: CeremonyState, key: KeyLog, now: Instant) -> bytes:
    """The refresh request that is a reason to leave the current epoch: our own, or one in another seat's Open."""
    epoch, raw = state.soft.asked.get(key.key_id, (Epoch(0), b""))
    if epoch == key.epoch:
        return raw
    for _, said in key.opens:
        if said.reason is OpenReason.REQUEST:
            try:
                check_refresh(state, key.key_id, said.evidence, now)
            except BadInput:
                continue
            return said.evidence
    return b""


def out_of_reach(state: CeremonyState, key: KeyLog) -> str:
    """Why no ceremony can bring this key to the committee of the newest roster; empty if one can."""
    newest = newest_committee(state.log, key.key_id)
    if key.current is None or newest is None or newest == key.current.committee:
        return ""
    known = key.current.committee.identities
    holders = {seat: known[seat] for seat in key.current.shares if seat in known}
    return refuse_step(key.key_id, key.current.committee.threshold, holders, newest.threshold, newest.identities)


def live_holders(state: CeremonyState, key: KeyLog) -> frozenset[Index]:
    """Seats that are up, mean to stay, and say that they hold a share of the current epoch."""
    live = state.soft.live.values()
    return frozenset(peer.index for peer in live if not peer.draining and peer.epochs.get(key.key_id) == key.epoch)


def refusal(state: CeremonyState, key_id: KeyId, now: Instant) -> RefusalCode | None:
    """Why a refresh of this key cannot be asked for now; None if it can."""
    key = state.log.keys.get(key_id)
    if key is None or state.log.roster_key(key_id) is None:
        return RefusalCode.UNKNOWN_KEY
    if key.current is None:
        return RefusalCode.NO_KEY_YET
    if not state.may_speak:
        return RefusalCode.REFRESH_UNAVAILABLE
    opened = key_id in state.opens or any(seat == state.seat for seat, _ in key.opens)
    if key.attempt is not None or opened or state.soft.asked.get(key_id, (0, b""))[0] == key.epoch:
        return RefusalCode.CEREMONY_RUNNING
    if out_of_reach(state, key):
        return RefusalCode.REFRESH_UNAVAILABLE
    committee = dealing_committee(state.log, key_id)
    # It would be opened, burn nonces, and stand in the way until patience is over, for nothing.
    if committee is None or len(live_holders(state, key)) < committee.commit_quorum:
        return RefusalCode.QUORUM_LOST
    last = max(state.opened.get(key_id, 0), state.committed.get(key_id, 0))
    return RefusalCode.REFRESH_TOO_SOON if now < last + state.timing.min_interval_ms else None
