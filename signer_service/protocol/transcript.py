"""What ceremonies hash and prove: every proof, key and hash is bound to (suite, open_id, phase, sender, record type).

``open_id`` in turn binds key, kind, epoch, attempt and roster version, and has fresh randomness of t seats in it. So
nothing that was made for one attempt, seat or record can be shown in another. Encoding:
``common.wire.transcript``, each item with its length, never Avro.
"""

import hashlib
from collections.abc import Iterable, Mapping

from common.ids import Index, OpenId
from common.wire.messages import Announce, Deal, Open, Phase, Verdict
from common.wire.transcript import digest, encode, number


def open_id(opens: Iterable[tuple[Index, Open]]) -> OpenId:
    """Name of an attempt: hash of the t Opens that opened it, in log order, each with the seat that said it."""
    items: list[bytes] = []
    for seat, said in opens:
        items += (
            number(seat),
            said.key_id.encode(),
            said.kind.value.encode(),
            number(said.from_epoch),
            number(said.attempt),
            number(said.roster_version),
            said.reason.value.encode(),
            said.nonce,
            hashlib.sha512(said.evidence).digest(),
        )
    return OpenId(digest(b"open", *items))


def _context(record: bytes, attempt: OpenId, phase: Phase, sender: Index, *more: bytes) -> bytes:
    return encode(b"ceremony-proof", (record, attempt, phase.value.encode(), number(sender), *more))


def heal_proof(said: Open, sender: Index, seat: Index) -> bytes:
    """Context of the proof of the current share in an Open to heal ``seat``: no attempt is there yet that could bind
    it, so key, kind, epoch, attempt, roster version and fresh randomness do."""
    items = (
        said.key_id.encode(),
        said.kind.value.encode(),
        number(said.from_epoch),
        number(said.attempt),
        number(said.roster_version),
        said.nonce,
        number(sender),
        number(seat),
    )
    return encode(b"ceremony-proof", (b"open-heal", *items))


def transport_proof(attempt: OpenId, sender: Index) -> bytes:
    """Context of the proof of x_j in an Announce."""
    return _context(b"announce-transport", attempt, Phase.ANNOUNCE, sender)


def held_share_proof(attempt: OpenId, sender: Index, transport_key: bytes) -> bytes:
    """Context of the proof of the current share in an Announce. With X_j in it: a thief of the seat's identity could
    otherwise take the proof out of its Announce and put a transport key of its own beside it."""
    return _context(b"announce-share", attempt, Phase.ANNOUNCE, sender, transport_key)


def constant_proof(attempt: OpenId, sender: Index) -> bytes:
    """Context of the proof of possession of commitment[0] in a Deal of a key generation."""
    return _context(b"deal-constant", attempt, Phase.DEAL, sender)


def ephemeral_proof(attempt: OpenId, sender: Index) -> bytes:
    """Context of the proof of e_i in a Deal."""
    return _context(b"deal-ephemeral", attempt, Phase.DEAL, sender)


def complaint_proof(attempt: OpenId, sender: Index, dealer: Index) -> bytes:
    """Context of the DLEQ proof in a complaint of ``sender`` about ``dealer``."""
    return _context(b"complaint", attempt, Phase.VERDICT, sender, number(dealer))


def new_share_proof(attempt: OpenId, sender: Index, said: bytes) -> bytes:
    """Context of the proof of s'_j in a Ready; ``said`` is the ``transcript_hash`` of the same record."""
    return _context(b"ready", attempt, Phase.READY, sender, said)


def committed_share_proof(attempt: OpenId, sender: Index) -> bytes:
    """Context of the proof of s_j in a Ready that is said once more after the commit. Another than before it: a broker
    with the identity key of then could otherwise let a seat's first Ready vouch for a commit that it never saw."""
    return _context(b"committed", attempt, Phase.COMMIT, sender)


def sealing(attempt: OpenId, dealer: Index, recipient: Index, ephemeral_key: bytes, transport_key: bytes) -> bytes:
    """What a sub-share is sealed for: KDF(x_j * E_i, open_id, dealer, recipient, E_i, X_j)."""
    return encode(b"sub-share", (attempt, number(dealer), number(recipient), ephemeral_key, transport_key))


def announce_digest(seat: Index, said: Announce) -> bytes:
    """Content of an Announce, as counted."""
    return digest(b"announce", said.open_id, number(seat), said.transport_key, said.transport_proof, said.share_proof)


def deal_digest(seat: Index, said: Deal) -> bytes:
    """Content of a Deal without its envelope: a second one that differs puts the dealer out."""
    return digest(
        b"deal",
        said.open_id,
        number(seat),
        number(len(said.commitments)),
        *said.commitments,
        said.constant_proof,
        said.ephemeral_key,
        said.ephemeral_proof,
        *(part for sealed in said.sealed for part in (number(sealed.recipient), sealed.ciphertext)),
    )


def verdict_digest(seat: Index, said: Verdict) -> bytes:
    """Content of a Verdict, as counted."""
    return digest(
        b"verdict",
        said.open_id,
        number(seat),
        *(part for each in said.complaints for part in (number(each.dealer), each.shared_key, each.proof)),
    )


def counted(
    attempt: OpenId,
    announces: Mapping[Index, bytes],
    deals: Mapping[Index, bytes],
    verdicts: Mapping[Index, bytes],
) -> bytes:
    """Hash of the counted records of an attempt up to the close of its Verdict phase: digests by seat, ascending."""
    items: list[bytes] = [attempt]
    for phase, digests in ((Phase.ANNOUNCE, announces), (Phase.DEAL, deals), (Phase.VERDICT, verdicts)):
        items += (phase.value.encode(), number(len(digests)))
        items += (part for seat in sorted(digests) for part in (number(seat), digests[seat]))
    return digest(b"counted", *items)
