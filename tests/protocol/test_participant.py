"""What a participant gives a share for, and what not, whoever coordinates (promise P2)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import BootId, Epoch, Index, Instant, KeyId, Offset, OpenId
from common.wire.messages import (
    MAX_MESSAGE_BYTES,
    RESERVED_PREFIX,
    Declined,
    DeclineReason,
    Mode,
    NonceBatch,
    NonceGrant,
    NonceRequest,
    NonceScope,
    NonceWant,
    Share,
    SignatureShares,
    SignGroup,
    SignItem,
    SignPackage,
    SignSession,
)
from signer_service.frost.group import Element, add, decode_scalar
from signer_service.frost.nonces import Commitment, SigningNonces, commit
from signer_service.frost.signing import SignatureShare, aggregate, sign_share, verify_share
from signer_service.protocol import participant
from signer_service.protocol.machine import Peer, PeerArrived, PeersChanged, Sender, ToPeer, Transition
from signer_service.protocol.package import group_hash
from signer_service.protocol.view import InternalSession, SigningView, ViewChanged
from tests.protocol.signing_world import KEY, START, WIRE, Committee, Dice, Pod, check_signature, deal

DICE = Dice(7)
TORSION = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
"""A point of order 8."""


class Scene:
    """Seat 2 of a committee under test; we are the coordinator in seat 1, with all that its owner has."""

    def __init__(self, n: int = 3, t: int = 2) -> None:
        self.pod = Pod(DICE)
        self.now = START
        self.committee: Committee = deal(DICE, n, t)
        self.boot = BootId(DICE.uuid())
        self.me = Sender(Index(1), BootId(DICE.uuid()))
        self.boots = {Index(i): BootId(DICE.uuid()) for i in range(3, n + 1)} | {
            Index(1): self.me.boot_id,
            Index(2): self.boot,
        }
        self.state = participant.start(Index(2), self.boot, WIRE)
        self.use(self.view())
        self.own: dict[bytes, SigningNonces] = {}
        self.next_session = 1

    def view(self, **change: Any) -> SigningView:
        keys = self.committee.keys[Index(2)]
        view = SigningView(Index(2), {self.pod.edge_key_id: self.pod.public}, {}, (KEY,), {KEY: keys})
        return replace(view, **change)

    def use(self, view: SigningView) -> None:
        self.state = participant.step(self.state, ViewChanged(view), Instant(self.now), DICE.entropy).state

    @property
    def scope(self) -> NonceScope:
        return self.committee.keys[Index(2)].scope

    def feed(self, message: Any, sender: Sender | None = None) -> Transition[participant.ParticipantState, None]:
        out = participant.step(
            self.state, PeerArrived(sender or self.me, message, b""), Instant(self.now), DICE.entropy
        )
        self.state = out.state
        return out

    def nonces(self, count: int = 1, scope: NonceScope | None = None, sender: Sender | None = None) -> NonceGrant:
        out = self.feed(NonceRequest((NonceWant(scope or self.scope, count),)), sender)
        (send,) = out.send
        assert isinstance(send, ToPeer)
        assert isinstance(send.message, NonceBatch)
        return send.message.grants[0]

    def session(self, grant: NonceGrant, k: int = 0, item: int = 0) -> SignSession:
        """With fresh nonces of seat 1, whose share we own as well."""
        nonces, commitment = commit(self.committee.packages[Index(1)].share, DICE.randbytes(64))
        self.own[commitment.to_bytes()] = nonces
        self.next_session += 1
        return SignSession(
            self.next_session,
            item,
            (0, grant.first_counter + k),
            (commitment.to_bytes(), grant.commitments[k]),
        )

    def group(self, raw: bytes, *sessions: SignSession, **change: Any) -> SignGroup:
        signers = (Index(1), Index(2))
        boots = tuple(self.boots[seat] for seat in signers)
        return replace(SignGroup(self.scope, Epoch(1), raw, signers, boots, sessions), **change)

    def ask(self, *groups: SignGroup, sender: Sender | None = None) -> list[Share | Declined]:
        out = self.feed(SignPackage(groups), sender)
        (send,) = out.send
        assert isinstance(send, ToPeer)
        assert isinstance(send.message, SignatureShares)
        return list(send.message.answers)

    def reason(self, *groups: SignGroup, sender: Sender | None = None) -> DeclineReason:
        (answer,) = self.ask(*groups, sender=sender)
        assert isinstance(answer, Declined), "a share was given"
        return answer.reason

    def item(self, message: bytes = b"message", **change: Any) -> SignItem:
        return self.pod.item(message, self.now, **change)

    def raw(self, *items: SignItem) -> bytes:
        return self.pod.record(items or [self.item()])[1]

    def sound(self, *items: SignItem) -> SignGroup:
        return self.group(self.raw(*items), self.session(self.nonces()))

    def finish(self, group: SignGroup, answer: Share, message: bytes) -> bytes:
        """Aggregate with our own share."""
        session = next(s for s in group.sessions if s.session_id == answer.session_id)
        commitments = dict(zip(group.signers, map(Commitment.from_bytes, session.commitments), strict=True))
        own = sign_share(self.committee.packages[Index(1)], self.own[session.commitments[0]], commitments, message)
        shares = {Index(1): own, Index(2): SignatureShare(decode_scalar(answer.share))}
        return aggregate(self.committee.public, commitments, message, shares)


def test_a_sound_package_gets_a_share_that_completes_a_signature() -> None:
    scene = Scene()
    group = scene.sound(scene.item(b"pay 5"))
    (answer,) = scene.ask(group)
    assert isinstance(answer, Share)
    assert answer.package_hash == group_hash(group)
    check_signature(scene.committee.public.group_key, b"pay 5", scene.finish(group, answer, b"pay 5"))


def test_many_groups_and_sessions_are_answered_in_one_record() -> None:
    scene = Scene()
    grant = scene.nonces(4)
    raw, other = scene.raw(scene.item(b"a"), scene.item(b"b")), scene.raw()
    answers = scene.ask(
        scene.group(raw, scene.session(grant, 0, 0), scene.session(grant, 1, 1)),
        scene.group(other, scene.session(grant, 2)),
        scene.group(raw[:-1] + b"\x00", scene.session(grant, 3)),
    )
    assert [type(answer) for answer in answers] == [Share, Share, Share, Declined]


# --- P2: the request itself ------------------------------------------------------------------------------------------


def test_p2_a_coordinator_without_the_edge_key_gets_no_share() -> None:
    scene = Scene()
    forger = Pod(DICE)
    forger.edge_key_id = scene.pod.edge_key_id
    raw = forger.record([forger.item(b"pay me", scene.now)])[1]
    assert scene.reason(scene.group(raw, scene.session(scene.nonces()))) is DeclineReason.BAD_REQUEST
    unknown = Pod(DICE)
    raw = unknown.record([unknown.item(b"pay me", scene.now)])[1]
    assert scene.reason(scene.group(raw, scene.session(scene.nonces()))) is DeclineReason.BAD_REQUEST


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_p2_a_request_with_one_bit_changed_gets_no_share(position: int, bit: int) -> None:
    scene = Scene()
    raw = bytearray(scene.raw(scene.item(b"pay 5 to alice")))
    raw[position % len(raw)] ^= 1 << bit
    group = scene.group(bytes(raw), scene.session(scene.nonces()))
    assert scene.reason(group) in {DeclineReason.BAD_REQUEST, DeclineReason.EXPIRED}


def test_p2_a_revoked_edge_key_gets_no_share() -> None:
    scene = Scene()
    group = scene.sound()
    scene.use(scene.view(edge_keys={}))
    assert scene.reason(group) is DeclineReason.BAD_REQUEST


def test_p2_the_session_signs_the_item_that_it_names_and_no_other() -> None:
    scene = Scene()
    group = scene.sound(scene.item(b"one"), scene.item(b"two"))
    (answer,) = scene.ask(group)
    assert isinstance(answer, Share)
    session = group.sessions[0]
    commitments = dict(zip(group.signers, map(Commitment.from_bytes, session.commitments), strict=True))
    share = SignatureShare(decode_scalar(answer.share))
    verify_share(scene.committee.public, Index(2), share, commitments, b"one")
    assert scene.reason(scene.group(group.request, scene.session(scene.nonces(), item=2))) is DeclineReason.BAD_REQUEST


BAD_ITEMS: dict[str, tuple[dict[str, Any], DeclineReason]] = {
    "reserved": ({"message": RESERVED_PREFIX + b"a key record"}, DeclineReason.BAD_REQUEST),
    "refresh": ({"message": b"", "mode": Mode.REFRESH}, DeclineReason.BAD_REQUEST),
    "other-key": ({"key_id": KeyId("other")}, DeclineReason.BAD_REQUEST),
    "expired": ({"created_ms": Instant(START - 6_000), "deadline_ms": Instant(START - 1_001)}, DeclineReason.EXPIRED),
    "too-far": ({"deadline_ms": Instant(START + 30_001)}, DeclineReason.BAD_REQUEST),
    "from-the-future": (
        {"created_ms": Instant(START + 20_000), "deadline_ms": Instant(START + 31_001)},
        DeclineReason.BAD_REQUEST,
    ),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_p2_an_item_that_no_policy_allows_gets_no_share(name: str) -> None:
    scene = Scene()
    change, reason = BAD_ITEMS[name]
    assert scene.reason(scene.sound(scene.item(**change))) is reason


def test_p2_within_a_second_of_skew_and_up_to_the_largest_message_there_is_a_share() -> None:
    scene = Scene()
    late = scene.item(created_ms=Instant(START - 6_000), deadline_ms=Instant(START - 1_000))
    large = scene.item(bytes(MAX_MESSAGE_BYTES))
    for item in (late, large, scene.item(b""), scene.item(RESERVED_PREFIX[:-1])):
        (answer,) = scene.ask(scene.sound(item))
        assert isinstance(answer, Share)


# --- P2: nonces ------------------------------------------------------------------------------------------------------


def test_p2_one_nonce_in_two_packages_gets_one_share() -> None:
    scene = Scene()
    grant = scene.nonces()
    first, second = scene.group(scene.raw(), scene.session(grant)), scene.group(scene.raw(), scene.session(grant))
    assert isinstance(scene.ask(first)[0], Share)
    assert scene.reason(second) is DeclineReason.NO_NONCE
    assert scene.reason(first) is DeclineReason.NO_NONCE, "a replayed package gets nothing"


def test_p2_one_nonce_twice_in_one_package_gets_one_share() -> None:
    scene = Scene()
    grant = scene.nonces()
    raw = scene.raw()
    answers = scene.ask(scene.group(raw, scene.session(grant), scene.session(grant)))
    assert isinstance(answers[0], Share)
    assert answers[1] == Declined(answers[1].session_id, DeclineReason.NO_NONCE)


def test_p2_a_refused_package_costs_the_nonce_too() -> None:
    scene = Scene()
    grant = scene.nonces()
    refused = scene.reason(scene.group(scene.raw(scene.item(RESERVED_PREFIX)), scene.session(grant)))
    assert refused is DeclineReason.BAD_REQUEST
    assert scene.reason(scene.group(scene.raw(), scene.session(grant))) is DeclineReason.NO_NONCE


def test_p2_a_commitment_that_is_not_mine_gets_no_share() -> None:
    scene = Scene()
    grant = scene.nonces(2)
    session = scene.session(grant)
    swapped = replace(session, commitments=(session.commitments[0], grant.commitments[1]))
    assert scene.reason(scene.group(scene.raw(), swapped)) is DeclineReason.NO_NONCE
    assert scene.reason(scene.group(scene.raw(), session)) is DeclineReason.NO_NONCE, "the nonce is spent"


@pytest.mark.parametrize("which", ["another seat", "another boot of the coordinator"])
def test_p2_nonces_of_one_coordinator_serve_no_other(which: str) -> None:
    scene = Scene()
    other = Sender(Index(3), scene.me.boot_id) if which == "another seat" else Sender(Index(1), BootId(DICE.uuid()))
    assert scene.reason(scene.sound(), sender=other) is DeclineReason.NO_NONCE


def test_p2_a_new_boot_of_mine_answers_stale_boot() -> None:
    scene = Scene()
    group = scene.sound()
    scene.state = participant.start(Index(2), BootId(DICE.uuid()), WIRE)
    scene.use(scene.view())
    assert scene.reason(group) is DeclineReason.STALE_BOOT


def test_p2_a_coordinator_gets_at_most_n_minus_t_plus_1_shares_for_a_request() -> None:
    scene = Scene(5, 2)
    raw = scene.raw()
    answers = [scene.ask(scene.group(raw, scene.session(scene.nonces())))[0] for _ in range(6)]
    assert [type(answer) for answer in answers] == [Share] * 4 + [Declined] * 2
    scene.now += 20_000
    again = scene.pod.record([replace(WIRE.decode_request(raw).items[0], deadline_ms=Instant(START + 30_000))])[1]
    assert scene.reason(scene.group(again, scene.session(scene.nonces()))) is DeclineReason.BAD_REQUEST
    other = Sender(Index(3), BootId(DICE.uuid()))
    (answer,) = scene.ask(scene.group(again, scene.session(scene.nonces(sender=other))), sender=other)
    assert isinstance(answer, Share)


def test_nonces_are_given_only_for_scopes_in_use() -> None:
    scene = Scene()
    unknown = [
        NonceScope(KEY, Offset(11)),
        NonceScope(KeyId("other"), Offset(10)),
        NonceScope(KEY, Offset(-1), OpenId(b"\x01" * 64)),
    ]
    for scope in unknown:
        assert scene.feed(NonceRequest((NonceWant(scope, 4),))).send == ()
    scene.use(scene.view(current={}, draining=scene.view().current))
    assert len(scene.nonces(3).commitments) == 3


def test_nonces_asked_for_before_a_commit_was_seen_come_with_it_and_do_not_exist_before() -> None:
    scene = Scene()
    after = deal(DICE, 3, 2, epoch=2, commit_offset=20)
    assert scene.feed(NonceRequest((NonceWant(after.keys[Index(2)].scope, 8),))).send == ()
    assert scene.state.nonces_held == 0
    view = scene.view(current={KEY: after.keys[Index(2)]}, draining=scene.view().current)
    out = participant.step(scene.state, ViewChanged(view), Instant(scene.now), DICE.entropy)
    (send,) = out.send
    assert isinstance(send, ToPeer)
    assert isinstance(send.message, NonceBatch)
    assert send.seat == 1
    assert [(grant.scope.commit_offset, len(grant.commitments)) for grant in send.message.grants] == [(20, 8)]
    assert participant.step(out.state, ViewChanged(view), Instant(scene.now), DICE.entropy).send == ()


def test_what_is_asked_for_too_early_is_kept_within_bounds() -> None:
    scene = Scene()
    past = NonceScope(KEY, Offset(9))
    foreign = NonceScope(KeyId("nobodys"), Offset(30))
    scene.feed(NonceRequest(tuple(NonceWant(scope, 4) for scope in (past, foreign, scene.scope))))
    assert scene.state.early == {}
    many = tuple(NonceWant(NonceScope(KEY, Offset(20 + k)), 256) for k in range(256))
    scene.feed(NonceRequest(many))
    assert [len(wants) for _, wants in scene.state.early.values()] == [participant.MOST_EARLY]
    # What it asks next is what it still waits for.
    scene.feed(NonceRequest((NonceWant(scene.scope, 1),)))
    assert scene.state.early == {}


def test_one_request_for_nonces_gets_at_most_p() -> None:
    scene = Scene()
    out = scene.feed(NonceRequest((NonceWant(scene.scope, 200), NonceWant(scene.scope, 200))))
    assert isinstance(out.send[0], ToPeer)
    assert isinstance(out.send[0].message, NonceBatch)
    assert sum(len(grant.commitments) for grant in out.send[0].message.grants) == 256


def test_a_new_boot_of_a_coordinator_is_served_before_presence_names_it() -> None:
    scene = Scene()
    live = {Index(1): Peer(Index(1), BootId(DICE.uuid()), False, {})}
    scene.state = participant.step(scene.state, PeersChanged(live), Instant(START), DICE.entropy).state
    assert len(scene.nonces(5).commitments) == 5


# --- P2: epoch, signers, points --------------------------------------------------------------------------------------


def test_p2_another_epoch_gets_no_share_and_says_which_way() -> None:
    scene = Scene()
    group = scene.sound()
    older, newer = NonceScope(KEY, Offset(9)), NonceScope(KEY, Offset(11))
    assert scene.reason(replace(group, scope=older)) is DeclineReason.STALE_EPOCH
    assert scene.reason(replace(group, scope=newer)) is DeclineReason.NOT_YET
    assert scene.reason(replace(group, epoch=Epoch(2))) is DeclineReason.BAD_REQUEST


def test_p2_a_commit_voids_the_nonces_of_the_epoch_before() -> None:
    scene = Scene()
    group = scene.sound()
    after = deal(DICE, 3, 2, epoch=2, commit_offset=20)
    scene.use(scene.view(current={KEY: after.keys[Index(2)]}))
    assert scene.reason(group) is DeclineReason.STALE_EPOCH
    assert scene.state.nonces_held == 0


def test_an_epoch_that_drains_still_ends_its_sessions() -> None:
    scene = Scene()
    group = scene.sound()
    after = deal(DICE, 3, 2, epoch=2, commit_offset=20)
    scene.use(scene.view(current={KEY: after.keys[Index(2)]}, draining={KEY: scene.committee.keys[Index(2)]}))
    assert isinstance(scene.ask(group)[0], Share)


BAD_SIGNERS: dict[str, Callable[[Scene, SignGroup], SignGroup]] = {
    "fewer than t": lambda s, g: replace(
        g,
        signers=(Index(2),),
        boots=(s.boot,),
        sessions=tuple(replace(x, counters=x.counters[1:], commitments=x.commitments[1:]) for x in g.sessions),
    ),
    "not ascending": lambda s, g: replace(g, signers=g.signers[::-1], boots=g.boots[::-1]),
    "one twice": lambda s, g: replace(g, signers=(Index(2), Index(2))),
    "not a holder": lambda s, g: replace(g, signers=(Index(2), Index(9))),
    "zero": lambda s, g: replace(g, signers=(Index(0), Index(2))),
    "without me": lambda s, g: replace(g, signers=(Index(1), Index(3))),
    "no signers": lambda s, g: replace(g, signers=(), boots=()),
    "a boot too few": lambda s, g: replace(g, boots=g.boots[1:]),
    "a counter too few": lambda s, g: replace(g, sessions=(replace(g.sessions[0], counters=(0,)),)),
    "a short commitment": lambda s, g: replace(
        g, sessions=(replace(g.sessions[0], commitments=(bytes(63), g.sessions[0].commitments[1])),)
    ),
}


@pytest.mark.parametrize("name", BAD_SIGNERS)
def test_p2_a_malformed_group_gets_no_share(name: str) -> None:
    scene = Scene()
    assert scene.reason(BAD_SIGNERS[name](scene, scene.sound())) is DeclineReason.BAD_REQUEST


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("kind", ["torsion", "identity", "small order", "not canonical", "not on the curve"])
def test_p2_a_share_with_a_point_outside_the_prime_order_group_is_refused(half: int, kind: str) -> None:
    scene = Scene()
    grant = scene.nonces()
    session = scene.session(grant)
    point = session.commitments[0][32 * half : 32 * half + 32]
    bad = {
        "torsion": add(Element(point), Element(TORSION)),
        "identity": b"\x01" + bytes(31),
        "small order": TORSION,
        "not canonical": b"\xee" + b"\xff" * 30 + b"\x7f",
        "not on the curve": b"\x02" + bytes(31),
    }[kind]
    halves = [session.commitments[0][:32], session.commitments[0][32:]]
    halves[half] = bad
    changed = replace(session, commitments=(b"".join(halves), session.commitments[1]))
    assert scene.reason(scene.group(scene.raw(), changed)) is DeclineReason.BAD_REQUEST


def test_p2_t_minus_1_colluding_seats_cannot_make_up_a_signature() -> None:
    """They own seats 1 and 3 of a 3-of-5, an honest seat gives them a share over m: it is of no use for another m'."""
    scene = Scene(5, 3)
    colluders = (Index(1), Index(3))
    own = {seat: commit(scene.committee.packages[seat].share, DICE.randbytes(64)) for seat in colluders}
    grant = scene.nonces()
    raws = (own[Index(1)][1].to_bytes(), grant.commitments[0], own[Index(3)][1].to_bytes())
    session = SignSession(1, 0, (0, grant.first_counter, 0), raws)
    signers = (Index(1), Index(2), Index(3))
    group = SignGroup(
        scene.scope, Epoch(1), scene.raw(scene.item(b"m")), signers, tuple(scene.boots[s] for s in signers), (session,)
    )
    (answer,) = scene.ask(group)
    assert isinstance(answer, Share)
    commitments = dict(zip(signers, map(Commitment.from_bytes, raws), strict=True))
    shares = {Index(2): SignatureShare(decode_scalar(answer.share))}
    for message in (b"m", b"m'"):
        for seat in colluders:
            shares[seat] = sign_share(scene.committee.packages[seat], own[seat][0], commitments, message)
        if message == b"m":
            check_signature(
                scene.committee.public.group_key,
                message,
                aggregate(scene.committee.public, commitments, message, shares),
            )
        else:
            with pytest.raises(Exception, match="bad signature shares of participants \\[2\\]"):
                aggregate(scene.committee.public, commitments, message, shares)
    # Without the request's edge signature there is not even that one share.
    grant = scene.nonces()
    session = replace(
        session, counters=(0, grant.first_counter, 0), commitments=(raws[0], grant.commitments[0], raws[2])
    )
    assert scene.reason(replace(group, request=b"", sessions=(session,))) is DeclineReason.BAD_REQUEST


# --- the key record's session ----------------------------------------------------------------------------------------


def internal_scene() -> tuple[Scene, SignGroup, bytes]:
    scene = Scene()
    open_id = OpenId(b"\x05" * 64)
    staged = deal(DICE, 3, 2, epoch=2, commit_offset=-1, open_id=open_id)
    message = RESERVED_PREFIX + b"what my fold says"
    session = InternalSession(open_id, staged.keys[Index(2)], message, False)
    scene.use(scene.view(internal={open_id: session}))
    grant = scene.nonces(scope=staged.keys[Index(2)].scope)
    scene.committee = staged
    return scene, scene.group(b"", scene.session(grant), epoch=Epoch(2)), message


def test_p2_the_key_records_session_signs_only_what_the_own_fold_says() -> None:
    scene, group, message = internal_scene()
    (answer,) = scene.ask(group)
    assert isinstance(answer, Share)
    check_signature(scene.committee.public.group_key, message, scene.finish(group, answer, message))


def test_p2_a_users_request_cannot_ride_in_the_key_records_session() -> None:
    scene, group, _ = internal_scene()
    assert scene.reason(replace(group, request=scene.raw())) is DeclineReason.BAD_REQUEST


def test_p2_no_nonce_of_an_attempt_outlives_it() -> None:
    scene, group, _ = internal_scene()
    scene.use(scene.view(current={}, internal={}))
    assert scene.reason(group) is DeclineReason.NOT_YET
    assert scene.state.nonces_held == 0


# --- total -----------------------------------------------------------------------------------------------------------


def test_records_under_our_own_name_are_ignored() -> None:
    scene = Scene()
    me = Sender(Index(2), BootId(DICE.uuid()))
    assert scene.feed(SignPackage((scene.sound(),)), me).send == ()
    assert scene.feed(NonceRequest((NonceWant(scene.scope, 1),)), me).send == ()


_INTS = st.integers(min_value=-(2**70), max_value=2**70)
_SESSION = st.builds(
    SignSession,
    _INTS,
    _INTS,
    st.lists(_INTS, max_size=3).map(tuple),
    st.lists(st.binary(max_size=70), max_size=3).map(tuple),
)


@given(
    st.lists(_SESSION, max_size=3).map(tuple),
    st.lists(st.integers(-1, 70_000), max_size=3).map(tuple),
    st.binary(max_size=64),
    st.booleans(),
)
def test_p7_no_package_makes_a_participant_raise(
    sessions: tuple[SignSession, ...], signers: tuple[Any, ...], request: bytes, own_boot: bool
) -> None:
    scene = Scene()
    boots = tuple(scene.boot if own_boot else BootId("x") for _ in signers)
    group = SignGroup(scene.scope, Epoch(1), request, signers, boots, sessions)
    out = scene.feed(SignPackage((group,)))
    for send in out.send:
        assert isinstance(send, ToPeer)
        assert isinstance(send.message, SignatureShares)
        assert all(isinstance(answer, Declined) for answer in send.message.answers)


def test_the_hash_of_a_group_covers_all_of_it() -> None:
    scene = Scene()
    group = scene.sound()
    session = group.sessions[0]
    others = [
        replace(group, scope=replace(group.scope, key_id=KeyId("other"))),
        replace(group, scope=replace(group.scope, commit_offset=Offset(11))),
        replace(group, scope=replace(group.scope, open_id=OpenId(b"\x01" * 64))),
        replace(group, epoch=Epoch(2)),
        replace(group, request=group.request + b"\x00"),
        replace(group, signers=(Index(1), Index(3))),
        replace(group, boots=group.boots[::-1]),
        replace(group, sessions=(replace(session, session_id=99),)),
        replace(group, sessions=(replace(session, item=1),)),
        replace(group, sessions=(replace(session, counters=(1, session.counters[1])),)),
        replace(group, sessions=(replace(session, commitments=session.commitments[::-1]),)),
        replace(group, sessions=(session, replace(session, session_id=99))),
    ]
    assert len({group_hash(g) for g in (group, *others)}) == 13
    assert group_hash(group, b"message") != group_hash(group)
