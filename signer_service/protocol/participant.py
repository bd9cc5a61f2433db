"""The participant: what one replica does for the sessions that others coordinate. RFC 9591, 5.1 and 5.2.

A machine without IO. It keeps secret nonces and gives each out once, as part of a signature share, and only after it
has looked at the request itself: a coordinator proves nothing by asking.

Rules, for each session of a package; the first that fails is the answer:

1. the group is well formed: signers ascend, each once, at least t of them, holders only, this seat among them;
2. its scope is one of this seat's: STALE_EPOCH or NOT_YET otherwise, and none of it is anybody's fault;
3. it was made for this boot of this process: STALE_BOOT;
4. the request carries an edge key's signature, and its item asks for this key, is for signing, not too large, not
   reserved, not expired: EXPIRED or BAD_REQUEST. The session of a KeyRecord has no request: what is signed there is
   what this seat's own fold of the ceremony log says, whatever the coordinator thinks;
5. the nonces at the counter are there, with the commitment that the package shows: NO_NONCE. Looking takes them away;
6. this coordinator has had fewer than n-t+1 shares for this request id: BAD_REQUEST;
7. the others' commitments are elements of prime order: BAD_REQUEST.

A request for nonces of a scope that is not this seat's yet waits for it: who sees a commit first asks at once, and its
stock would be empty until it asks again. No nonce is made before this seat has seen the commit itself.

Why n-t+1 in rule 6: each attempt after the first leaves out a seat that failed, and no more than n-t can be left out.
An honest coordinator needs no further share of one seat for one request, and a liar gets none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from common.errors import BadInput
from common.ids import BootId, Index, Instant, RequestId
from common.wire.messages import (
    MAX_DEADLINE_MS,
    Declined,
    DeclineReason,
    MsgToSign,
    NonceBatch,
    NonceRequest,
    NonceScope,
    NonceWant,
    Share,
    SignatureShares,
    SignGroup,
    SignPackage,
    SignSession,
)
from common.wire.signatures import check_request
from signer_service.frost.group import encode_scalar
from signer_service.frost.keys import KeyPackage
from signer_service.frost.nonces import Commitment, SigningNonces
from signer_service.frost.signing import prepare, sign_share
from signer_service.protocol.machine import (
    Entropy,
    Outgoing,
    PeerArrived,
    PeersChanged,
    Sender,
    Tick,
    ToPeer,
    Transition,
)
from signer_service.protocol.nonce_pool import KEPT_SIZE, POOL_SIZE, SecretNonces
from signer_service.protocol.package import group_hash, well_formed
from signer_service.protocol.request_check import SKEW_MS, check_item, decline_reason
from signer_service.protocol.view import EpochKeys, InternalSession, SigningView, ViewChanged
from signer_service.protocol.wire import Wire

Event: TypeAlias = PeerArrived | ViewChanged | PeersChanged | Tick

GRANTS_PER_S: Final = 8 * POOL_SIZE
"""Nonce pairs made for one coordinator in a second: more than it can use, and 7 % of our time at most."""

MOST_EARLY: Final = 64
"""Scopes of one coordinator that are waited for: one for each key."""

_COUNT_MS: Final = MAX_DEADLINE_MS + 2 * SKEW_MS
"""No request is signed longer than this after it was first seen, so that counts older than this are of no use."""


@dataclass(frozen=True, slots=True)
class _Usable:
    """One scope in which this seat gives shares."""

    keys: EpochKeys
    share: KeyPackage
    holders: frozenset[Index]
    internal: InternalSession | None

    @property
    def max_shares(self) -> int:
        return len(self.holders) - self.keys.threshold + 1


@dataclass(slots=True)
class ParticipantState:
    """Belongs to ``step``. Nothing in it is ever written to disk."""

    seat: Index
    boot_id: BootId
    wire: Wire
    nonces: SecretNonces
    view: SigningView
    live: Mapping[Index, BootId] = field(default_factory=dict)
    usable: dict[NonceScope, _Usable] = field(default_factory=dict)
    given: dict[tuple[Index, RequestId], int] = field(default_factory=dict)
    given_before: dict[tuple[Index, RequestId], int] = field(default_factory=dict)
    given_since: Instant = Instant(0)
    early: dict[Index, tuple[Sender, tuple[NonceWant, ...]]] = field(default_factory=dict)
    """By coordinator: what it last asked for in scopes that this seat has not seen begin."""
    granted: dict[Index, tuple[int, int]] = field(default_factory=dict)
    """By coordinator: the second of its last request, and how many pairs were made for it in that second."""

    @property
    def nonces_held(self) -> int:
        """Secret pairs in memory, for all coordinators."""
        return len(self.nonces)


def start(seat: Index, boot_id: BootId, wire: Wire, pool_size: int = KEPT_SIZE) -> ParticipantState:
    """A participant that has just started: no keys yet, no nonces of any earlier life."""
    return ParticipantState(seat, boot_id, wire, SecretNonces(pool_size), SigningView(seat))


def step(state: ParticipantState, event: Event, now: Instant, entropy: Entropy) -> Transition[ParticipantState, None]:
    """Take one event. Total: no content of a peer's record makes it raise.

    Args:
        state: Goes over to this function; use ``Transition.state``.
        event: A peer's NonceRequest or SignPackage, a new view, who is live, or a tick.
        now: This process's clock.
        entropy: Fresh random bytes; 64 per nonce pair.

    Returns:
        At most one NonceBatch or SignatureShares for the sender; after a new view, a NonceBatch for each coordinator
        that asked too early. It never asks for a tick.
    """
    match event:
        case PeerArrived(sender=sender, message=message):
            # Our own identity on our own topic: an earlier life of ours, or a record sent round to us.
            if sender.index == state.seat:
                return Transition(state)
            if isinstance(message, SignPackage):
                return _sign(state, sender, message, now)
            if isinstance(message, NonceRequest):
                return _grant(state, sender, message, now, entropy)
        case ViewChanged(view=view):
            _take_view(state, view)
            return _grant_early(state, now, entropy)
        case PeersChanged(live=live):
            state.live = {index: peer.boot_id for index, peer in live.items()}
        case Tick():
            pass
    return Transition(state)


def _take_view(state: ParticipantState, view: SigningView) -> None:
    usable: dict[NonceScope, _Usable] = {}
    for keys in (*view.draining.values(), *view.current.values()):
        if keys.share is not None:
            usable[keys.scope] = _Usable(keys, keys.share, keys.holders, None)
    for internal in view.internal.values():
        keys = internal.keys
        if keys.share is not None:
            usable[keys.scope] = _Usable(keys, keys.share, keys.holders, internal)
    state.view = view
    state.usable = usable
    state.nonces.keep_only(usable)


def _grant(
    state: ParticipantState, sender: Sender, request: NonceRequest, now: Instant, entropy: Entropy
) -> Transition[ParticipantState, None]:
    live_boot = state.live.get(sender.index)
    second = now // 1_000
    last, made = state.granted.get(sender.index, (second, 0))
    made = made if last == second else 0
    # A request of 100 bytes costs us 9 ms: without an end to it one seat could leave no time for the others.
    left = min(POOL_SIZE, GRANTS_PER_S - made)
    grants = []
    early: list[NonceWant] = []
    for want in request.wants:
        usable = state.usable.get(want.scope)
        count = min(want.count, left)
        if usable is None:
            if len(early) < MOST_EARLY and _may_come(state.view, want.scope):
                early.append(want)
        elif count > 0:
            grants.append(state.nonces.reserve(sender, want.scope, usable.share.share, count, entropy, live_boot))
            left -= count
            made += count
    state.granted[sender.index] = (second, made)
    if early:
        state.early[sender.index] = (sender, tuple(early))
    else:
        state.early.pop(sender.index, None)
    if not grants:
        return Transition(state)
    return Transition(state, send=(ToPeer(sender.index, NonceBatch(tuple(grants))),))


def _may_come(view: SigningView, scope: NonceScope) -> bool:
    """Whether ``scope`` may still begin here: another commit of one of our keys, or the session before one."""
    current = view.current.get(scope.key_id)
    later = current is None or scope.commit_offset > current.scope.commit_offset
    return scope.key_id in view.key_ids and (later or bool(scope.open_id))


def _grant_early(state: ParticipantState, now: Instant, entropy: Entropy) -> Transition[ParticipantState, None]:
    """What was asked for too early and can be given now. What still cannot goes on waiting."""
    send: list[Outgoing] = []
    for sender, wants in tuple(state.early.values()):
        send += _grant(state, sender, NonceRequest(wants), now, entropy).send
    return Transition(state, send=tuple(send))


def _sign(
    state: ParticipantState, sender: Sender, package: SignPackage, now: Instant
) -> Transition[ParticipantState, None]:
    if now - state.given_since > _COUNT_MS:
        state.given_before, state.given, state.given_since = state.given, {}, now
    answers: list[Share | Declined] = []
    for group in package.groups:
        answered = _sign_group(state, sender, group, now)
        if isinstance(answered, DeclineReason):
            answers += [Declined(session.session_id, answered) for session in group.sessions]
        else:
            answers += answered
    if not answers:
        return Transition(state)
    return Transition(state, send=(ToPeer(sender.index, SignatureShares(tuple(answers))),))


def _sign_group(
    state: ParticipantState, sender: Sender, group: SignGroup, now: Instant
) -> list[Share | Declined] | DeclineReason:
    usable = state.usable.get(group.scope)
    if usable is None:
        return _why_not_usable(state, group.scope)
    signers = group.signers
    keys = usable.keys
    if (
        not well_formed(group)
        or group.epoch != keys.epoch
        or len(signers) < keys.threshold
        or state.seat not in signers
        or not usable.holders.issuperset(signers)
    ):
        return DeclineReason.BAD_REQUEST
    position = signers.index(state.seat)
    if group.boots[position] != state.boot_id:
        return DeclineReason.STALE_BOOT
    request: MsgToSign | None = None
    if usable.internal is None:
        request = _open_request(state, group.request)
        if request is None:
            return DeclineReason.BAD_REQUEST
    elif group.request:
        return DeclineReason.BAD_REQUEST
    signer = _GroupSigner(state, usable, group, position, request, sender, now)
    return [signer.answer(session) for session in group.sessions]


def _why_not_usable(state: ParticipantState, scope: NonceScope) -> DeclineReason:
    """The log has one order: a scope of an earlier commit is past, one that is unknown may be still to come."""
    current = state.view.current.get(scope.key_id)
    if current is not None and 0 <= scope.commit_offset < current.scope.commit_offset:
        return DeclineReason.STALE_EPOCH
    return DeclineReason.NOT_YET


def _open_request(state: ParticipantState, raw: bytes) -> MsgToSign | None:
    try:
        request = state.wire.decode_request(raw)
        # P2: whoever coordinates, and however many of us are owned, a share needs an API pod's word.
        check_request(raw, request, state.view.edge_keys)
    except BadInput:
        return None
    return request


class _GroupSigner:
    """Answers the sessions of one group: what they have in common is worked out once."""

    __slots__ = ("group", "hash", "now", "position", "request", "sender", "state", "usable", "verdicts")

    def __init__(
        self,
        state: ParticipantState,
        usable: _Usable,
        group: SignGroup,
        position: int,
        request: MsgToSign | None,
        sender: Sender,
        now: Instant,
    ) -> None:
        self.state = state
        self.usable = usable
        self.group = group
        self.position = position
        self.request = request
        self.sender = sender
        self.now = now
        internal = usable.internal
        self.hash = group_hash(group, b"" if internal is None else internal.message)

    def answer(self, session: SignSession) -> Share | Declined:
        """Rules 4 to 7. Whatever comes out, the nonces at the session's counter are gone."""
        nonces = self.state.nonces.take(self.sender, self.group.scope, session.counters[self.position])
        message = self._message(session)
        if isinstance(message, DeclineReason):
            return Declined(session.session_id, message)
        if nonces is None or nonces.commitment.to_bytes() != session.commitments[self.position]:
            return Declined(session.session_id, DeclineReason.NO_NONCE)
        if self.request is not None and not self._may_give(self.request.items[session.item].request_id):
            return Declined(session.session_id, DeclineReason.BAD_REQUEST)
        share = self._share(session, nonces, message)
        if share is None:
            return Declined(session.session_id, DeclineReason.BAD_REQUEST)
        return Share(session.session_id, share, self.hash)

    def _message(self, session: SignSession) -> bytes | DeclineReason:
        if self.request is None:
            internal = self.usable.internal
            if internal is None or session.item != 0:
                return DeclineReason.BAD_REQUEST
            return internal.message
        if session.item >= len(self.request.items):
            return DeclineReason.BAD_REQUEST
        item = self.request.items[session.item]
        if item.key_id != self.group.scope.key_id:
            return DeclineReason.BAD_REQUEST
        refusal = check_item(item, self.now, SKEW_MS)
        return item.message if refusal is None else decline_reason(refusal)

    def _may_give(self, request_id: RequestId) -> bool:
        """Count one more share for ``request_id`` to this coordinator, unless it had all that it can need."""
        key = (self.sender.index, request_id)
        given = self.state.given
        count = given.get(key, 0) + 1
        if count + self.state.given_before.get(key, 0) > self.usable.max_shares:
            return False
        given[key] = count
        return True

    def _share(self, session: SignSession, nonces: SigningNonces, message: bytes) -> bytes | None:
        commitments: dict[Index, Commitment] = {}
        key = self.usable.share
        try:
            for seat, received in zip(self.group.signers, session.commitments, strict=True):
                commitments[seat] = nonces.commitment if seat == key.index else Commitment.to_multiply(received)
            context = prepare(key.group_key, commitments, message, (key.index, nonces))
            return encode_scalar(sign_share(key, nonces, commitments, message, context))
        except (BadInput, RuntimeError):
            # RuntimeError: libsodium refused a binding commitment as no element of the prime-order subgroup.
            return None
