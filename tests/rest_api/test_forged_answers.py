"""P4: whoever can write to our topics but holds no node key can delay and drop; he cannot make a pod answer wrongly."""

import base64
from dataclasses import replace

import httpx
import pytest

from common import ed25519
from common.ids import Epoch, Index, KeyId
from common.kafka.port import Delivery, End, Record
from common.wire import codec, envelope, topics, transcript
from common.wire.messages import DeadLetter, Outcome, RefusalCode, Refused, Role, Signed
from tests.brokers import until
from tests.rest_api.test_routing import a_beat
from tests.rest_api.test_sign import a_problem, signed
from tests.rest_api.world import Asked, Pod, World, boot, keypair, running_pod

pytestmark = pytest.mark.anyio


async def first_forged_then_true(pod: Pod, world: World, forge: "Forge", kind: str) -> httpx.Response:
    """Let a forgery come before the true answer, and see it counted."""
    before = pod.count("answers_total", kind=kind)

    def both(asked: Asked) -> None:
        forge(asked)
        asked.seat.sign(asked)

    world.committee.all_do(both)
    answer = await pod.http.post("/v1/sign", json={"text": "hello"})
    assert pod.count("answers_total", kind=kind) == before + 1
    return answer


class Forge:
    """What a forger sends for a request."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.private, self.public = keypair()

    def __call__(self, asked: Asked) -> None:
        raise AssertionError("a forger does something")


async def test_a_signature_of_another_key_does_not_end_the_request(pod: Pod, shared_world: World) -> None:
    class OtherKey(Forge):
        def __call__(self, asked: Asked) -> None:
            [item] = asked.request.items
            asked.seat.answer(asked, shared_world.committee.outcome(item, private=self.private))

    signed(await first_forged_then_true(pod, shared_world, OtherKey(shared_world), "invalid"), b"hello")


async def test_a_true_signature_over_another_message_does_not_end_the_request(pod: Pod, shared_world: World) -> None:
    class OtherMessage(Forge):
        def __call__(self, asked: Asked) -> None:
            [item] = asked.request.items
            asked.seat.answer(asked, shared_world.committee.outcome(item, message=b"pay the forger"))

    signed(await first_forged_then_true(pod, shared_world, OtherMessage(shared_world), "invalid"), b"hello")


async def test_a_signature_that_names_another_key_id_does_not_end_the_request(pod: Pod, shared_world: World) -> None:
    class OtherName(Forge):
        def __call__(self, asked: Asked) -> None:
            [item] = asked.request.items
            outcome = shared_world.committee.outcome(replace(item, key_id=KeyId("other")))
            asked.seat.answer(asked, outcome)

    signed(await first_forged_then_true(pod, shared_world, OtherName(shared_world), "invalid"), b"hello")


async def test_an_answer_for_another_start_of_the_pod_is_foreign(pod: Pod, shared_world: World) -> None:
    class OtherInstance(Forge):
        def __call__(self, asked: Asked) -> None:
            stranger = replace(asked, request=replace(asked.request, instance_id=boot()))
            asked.seat.refuse(stranger, RefusalCode.UNKNOWN_KEY, retryable=False)

    signed(await first_forged_then_true(pod, shared_world, OtherInstance(shared_world), "foreign"), b"hello")


async def test_a_refusal_from_outside_the_committee_is_foreign(pod: Pod, shared_world: World) -> None:
    class Outsider(Forge):
        """A seat that the roster does not have, and a seat of the roster with another identity key."""

        def __call__(self, asked: Asked) -> None:
            [item] = asked.request.items
            refused = Outcome(item.request_id, Refused(RefusalCode.UNKNOWN_KEY, "no", retryable=False))
            for index in (Index(9), Index(1), Index(2)):
                signer = envelope.Signer(Role.SIGNER, index, boot(), self.private)
                asked.seat.answer(asked, refused, signer=signer)

    before = pod.count("answers_total", kind="foreign")
    forger = Outsider(shared_world)

    def both(asked: Asked) -> None:
        forger(asked)
        asked.seat.sign(asked)

    shared_world.committee.all_do(both)
    signed(await pod.http.post("/v1/sign", json={"text": "hello"}), b"hello")
    assert pod.count("answers_total", kind="foreign") == before + 3


async def test_a_pod_cannot_refuse_in_a_seats_place(pod: Pod, shared_world: World) -> None:
    """The edge key signs envelopes too: one who stole it must not be able to end requests."""

    class AsPod(Forge):
        def __call__(self, asked: Asked) -> None:
            [item] = asked.request.items
            refused = Outcome(item.request_id, Refused(RefusalCode.QUORUM_LOST, "no", retryable=True))
            signer = envelope.Signer(Role.API, 1, boot(), shared_world.trust.edge)
            asked.seat.answer(asked, refused, signer=signer)

    signed(await first_forged_then_true(pod, shared_world, AsPod(shared_world), "foreign"), b"hello")


async def test_a_true_signature_wins_whoever_brings_it_but_his_claims_are_not_shown(
    pod: Pod, shared_world: World
) -> None:
    private, _ = keypair()

    def thief(asked: Asked) -> None:
        [item] = asked.request.items
        true = shared_world.committee.outcome(item).result
        assert isinstance(true, Signed)
        lies = Outcome(item.request_id, replace(true, epoch=Epoch(77), signers=(Index(5),)))
        asked.seat.answer(asked, lies, signer=envelope.Signer(Role.SIGNER, 9, boot(), private))

    shared_world.committee.all_do(thief)
    body = signed(await pod.http.post("/v1/sign", json={"text": "hello"}), b"hello")
    assert (body["epoch"], body["signers"]) == (1, [])


async def test_one_seat_cannot_refuse_in_the_name_of_all(pod: Pod, shared_world: World) -> None:
    """2 of 3: one liar says "never"; two others sign. The request goes to another seat and is signed."""
    liar = shared_world.committee.seats[Index(1)]
    liar.behaviour = lambda asked: liar.refuse(asked, RefusalCode.UNKNOWN_KEY, retryable=False)
    for _ in range(12):
        signed(await pod.http.post("/v1/sign", json={"text": "hello"}), b"hello")


async def test_as_many_refusals_as_leave_fewer_than_t_end_the_request(pod: Pod, shared_world: World) -> None:
    committee = shared_world.committee
    committee.all_do(lambda asked: asked.seat.refuse(asked, RefusalCode.QUORUM_LOST, retryable=True))
    answer = await pod.http.post("/v1/sign", json={"text": "hello"})
    a_problem(answer, 503, "quorum-lost")
    assert "retry-after" in answer.headers
    # n - t + 1 = 2 seats were asked, not one, and not all three.
    assert len({seat for seat, _ in committee.asked_items()}) == 2
    assert len(committee.asked_items()) == 2
    assert "as the test wants" not in answer.text


async def test_garbage_among_the_answers_goes_to_the_dead_letters_and_the_next_answer_counts(
    pod: Pod, shared_world: World
) -> None:
    letters: list[Record] = []
    prefix = shared_world.trust.prefix
    tail = shared_world.committee.kafka.tail({topics.dead_letters(prefix).name: End()}, letters.extend)
    await tail.start()
    try:
        reply_topic = topics.responses(prefix, 0).name
        for rubbish in (b"", b"\xc3\x01rubbish", bytes(1000)):
            shared_world.committee.producer.send(reply_topic, rubbish)
        signed(await pod.http.post("/v1/sign", json={"text": "hello"}), b"hello")
        await until(lambda: len(letters) == 3, "three dead letters")
        kept = [codec.decode(record.value, DeadLetter) for record in letters]
        assert [letter.value for letter in kept] == [b"", b"\xc3\x01rubbish", bytes(1000)]
        assert {letter.topic for letter in kept} == {reply_topic}
        assert {letter.found_by for letter in kept} == {"rest-api-0"}
    finally:
        await tail.close()


async def test_a_forged_key_record_is_not_believed(own_world: World) -> None:
    """Of another group key, attested by strangers or by our own seats; unsigned; or with too few attestations."""
    trust, committee = own_world.trust, own_world.committee
    other = keypair()
    async with running_pod(own_world.settings()) as pod:
        stranger = type(trust)(trust.prefix)
        lonely = replace(trust.key_record(epoch=2), attestations=trust.key_record(epoch=2).attestations[:1])
        forged = [
            stranger.key_record(),
            replace(stranger.key_record(), roster=trust.roster),
            trust.key_record(group=other),
            replace(trust.key_record(epoch=2), signature=bytes(64)),
            # The group's own signature is on it: that only one seat attests it is all that is wrong.
            replace(lonely, signature=ed25519.sign(trust.group, transcript.key_record_message(lonely))),
        ]
        for record in forged:
            committee.publish(codec.encode(record))
        committee.publish(b"rubbish")
        await until(
            lambda: (
                sum(
                    sample.value
                    for metric in pod.metrics.dead_letters._metric.collect()
                    for sample in metric.samples
                    if sample.name.endswith("_total")
                )
                == len(forged) + 1
            ),
            "each forgery is counted",
            5,
        )
        key = (await pod.http.get("/v1/keys/default")).json()
        assert key["epoch"] == 1
        signed(await pod.http.post("/v1/sign", json={"text": "hello"}), b"hello")
        # The next true one is believed all the same, and the one before it no more.
        committee.publish(codec.encode(trust.key_record(epoch=2)))
        await until(lambda: pod.gateway.keys.believed("default").epoch == 2, "epoch 2")
        committee.publish(codec.encode(trust.key_record(epoch=1)))
        signed(await pod.http.post("/v1/sign", json={"text": "hello"}), b"hello")
        assert (await pod.http.get("/v1/keys/default")).json()["epoch"] == 2


async def test_a_key_that_the_settings_pin_cannot_be_another(own_world: World) -> None:
    pinned = {"default": base64.b64encode(keypair()[1]).decode()}
    async with running_pod(own_world.settings(pinned_keys=pinned), wait=False) as pod:
        await until(lambda: "position" not in pod.gateway.standing.readiness(), "positioned")
        await until(lambda: pod.count("dead_letters_total", topic=topics.keys(own_world.trust.prefix).name,
                                      reason="public-key-pinned") == 1, "refused", 5)  # fmt: skip
        a_problem(await pod.http.post("/v1/sign", json={"text": "a"}), 503, "no-key-yet")
        assert (await pod.http.get("/readyz")).status_code == 503


async def test_a_forged_beat_moves_nothing(pod: Pod, shared_world: World) -> None:
    prefix = shared_world.trust.prefix
    seat = shared_world.committee.seats[Index(1)]
    topic = topics.presence(prefix).name
    thief = envelope.Signer(Role.SIGNER, 1, boot(), keypair()[0])
    before = pod.gateway.routing.seats[Index(1)].boot_id
    seen: list[Delivery] = []
    for signer, where in ((thief, topic), (seat.signer(), topics.keys(prefix).name)):
        sealed = envelope.seal(signer, where, codec.encode(a_beat(seq=1_000_000, partitions=())))
        shared_world.committee.producer.send(topic, sealed, on_delivery=seen.append)
    shared_world.committee.producer.send(topic, b"rubbish", on_delivery=seen.append)
    await until(lambda: len(seen) == 3, "delivered")
    signed(await pod.http.post("/v1/sign", json={"text": "hello"}), b"hello")
    view = pod.gateway.routing.seats[Index(1)]
    assert view.boot_id == before
    assert view.beat.seq < 1_000_000
