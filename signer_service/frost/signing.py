"""Round two and aggregation: from a list of commitments to a plain Ed25519 signature. RFC 9591, 4.3 to 5.3.

What all of them compute from (group key, commitments, message) is a ``SessionContext``, made once by ``prepare``. A
participant gives ``prepare`` its own nonces: its own term of R is then one base multiplication instead of a point
multiplication and an addition. A coordinator that takes part aggregates with the context it signed with.

Commitments come by identifier, at least t of them, and are hashed as the whole ascending list; elements in them were
checked when they were decoded. Shares are scalars in [0, L), not secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NewType

from common import ed25519
from common.errors import BadInput, Bug
from common.ids import MAX_INDEX, Index
from signer_service.frost.errors import CommitmentMismatch, InvalidShare, TooFewSigners, UnknownIdentifier
from signer_service.frost.group import IDENTITY, ORDER, Element, Scalar, add, base_mul, encode_scalar, mul
from signer_service.frost.hashing import h1, h2, h4, h5
from signer_service.frost.keys import KeyPackage, PublicKeyPackage
from signer_service.frost.nonces import Commitment, SigningNonces
from signer_service.frost.sharing import lagrange_weights

SignatureShare = NewType("SignatureShare", Scalar)
"""``z_i``: 32 bytes little-endian on the wire (``encode_scalar``, ``decode_scalar``)."""

SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What every participant and the coordinator derive from one session's public values. Nothing in it is secret."""

    group_key: Element
    commitments: Mapping[Index, Commitment]
    message: bytes
    binding_factors: Mapping[Index, Scalar]
    group_commitment: Element
    challenge: Scalar
    weights: Mapping[Index, Scalar]
    """Lagrange coefficients over the participants, at 0."""


def prepare(
    group_key: Element,
    commitments: Mapping[Index, Commitment],
    message: bytes,
    own: tuple[Index, SigningNonces] | None = None,
) -> SessionContext:
    """Compute binding factors, R and the challenge of a session, once. RFC 9591, 4.4 to 4.6.

    Args:
        group_key: The key that the session signs with.
        commitments: One per chosen participant.
        message: The bytes the verifier will see.
        own: A participant's own identifier and nonces, if it has any: R comes out the same, cheaper.

    Raises:
        CommitmentMismatch: the entry for ``own`` is missing or is not that of its nonces.
        UnknownIdentifier: an identifier is 0 or above 65535.
    """
    # Checked before the nonces are touched: with the own term made from nonces that are not in the list, R would be
    # one that nobody committed to.
    if own is not None and commitments.get(own[0]) != own[1].commitment:
        raise CommitmentMismatch(own[0])
    factors = binding_factors(group_key, commitments, message)
    r = group_commitment(commitments, factors, own)
    return SessionContext(
        group_key, commitments, message, factors, r, challenge(r, group_key, message), lagrange_weights(tuple(factors))
    )


def binding_factors(group_key: Element, commitments: Mapping[Index, Commitment], message: bytes) -> dict[Index, Scalar]:
    """``compute_binding_factors`` of RFC 9591, 4.4: one factor per participant, each over the full list; ascending.

    Raises:
        UnknownIdentifier: an identifier is 0 or above 65535.
    """
    prefix, encoded = _binding_factor_prefix(group_key, commitments, message)
    return {index: h1(prefix + identifier) for index, identifier in encoded}


def binding_factor_inputs(
    group_key: Element, commitments: Mapping[Index, Commitment], message: bytes
) -> dict[Index, bytes]:
    """The ``rho_input`` of each participant, as the RFC's vectors print it; for checks and evidence."""
    prefix, encoded = _binding_factor_prefix(group_key, commitments, message)
    return {index: prefix + identifier for index, identifier in encoded}


def group_commitment(
    commitments: Mapping[Index, Commitment],
    factors: Mapping[Index, Scalar],
    own: tuple[Index, SigningNonces] | None = None,
) -> Element:
    """``compute_group_commitment`` of RFC 9591, 4.5: R, the sum of D_i + rho_i * E_i.

    With ``own``, that term is (d + rho * e) * B: 16 us instead of 75 + 15. The caller has checked that the nonces are
    those of the commitment.
    """
    skip, result = 0, IDENTITY
    if own is not None:
        skip, nonces = own
        result = base_mul(Scalar((nonces.hiding.expose() + factors[own[0]] * nonces.binding.expose()) % ORDER))
    for index, commitment in commitments.items():
        if index != skip:
            term = add(commitment.hiding, mul(commitment.binding, factors[index]))
            result = term if result == IDENTITY else add(result, term)
    return result


def challenge(group_commitment: Element, group_key: Element, message: bytes) -> Scalar:
    """``compute_challenge`` of RFC 9591, 4.6: H2(R ‖ public key ‖ message), that of RFC 8032."""
    return h2(group_commitment + group_key + message)


def sign_share(
    key: KeyPackage,
    nonces: SigningNonces,
    commitments: Mapping[Index, Commitment],
    message: bytes,
    context: SessionContext | None = None,
) -> SignatureShare:
    """Compute this participant's share of the group signature over ``message``.

    RFC 9591, section 5.2, for FROST(Ed25519, SHA-512). With nonces ``d, e``, key share ``s``, binding factor ``rho``
    (4.4), Lagrange coefficient ``lam`` over the participants of ``commitments`` (4.2) and challenge ``c`` (4.6)::

        z = d + e * rho + lam * s * c    (mod L)

    Args:
        key: This participant's share, of the epoch that the session names.
        nonces: The pair made for this session and no other.
        commitments: One per chosen participant, this one included: t to n entries.
        message: The bytes the verifier will see; pure Ed25519, so not a digest. May be empty.
        context: What ``prepare`` made of the same session, if the caller will need it again.

    Returns:
        The share ``z``: a scalar in [0, L), 32 bytes little-endian on the wire. Not secret.

    Raises:
        TooFewSigners: fewer than t commitments.
        CommitmentMismatch: the entry for this participant is not that of ``nonces``: the coordinator mixed up sessions,
            or lies.
        UnknownIdentifier: an identifier is 0 or above 65535.
        Bug: ``context`` is of another session.

    Security:
        Two shares made with one pair of nonces reveal ``s`` (section 7). The caller must have removed the pair before
        it calls.
    """
    if len(commitments) < key.threshold:
        raise TooFewSigners(len(commitments), key.threshold)
    if commitments.get(key.index) != nonces.commitment:
        raise CommitmentMismatch(key.index)
    if context is None:
        context = prepare(key.group_key, commitments, message, (key.index, nonces))
    else:
        _check_same_session(context, key.group_key, commitments, message)
    rho = context.binding_factors[key.index]
    weighted_challenge = context.weights[key.index] * context.challenge
    z = nonces.hiding.expose() + nonces.binding.expose() * rho + key.share.expose() * weighted_challenge
    return SignatureShare(Scalar(z % ORDER))


def verify_share(
    public: PublicKeyPackage,
    index: Index,
    share: SignatureShare,
    commitments: Mapping[Index, Commitment],
    message: bytes,
    *,
    context: SessionContext | None = None,
) -> None:
    """``verify_signature_share`` of RFC 9591, 5.4: return only if z * B == D + rho * E + (c * lam) * Y. 200 us.

    Raises:
        InvalidShare: it does not; the culprit is ``index``.
        UnknownIdentifier: ``index`` has no commitment here or no verification share in ``public``.
        Bug: ``context`` is of another session.
    """
    if index not in commitments or index not in public.verification_shares:
        raise UnknownIdentifier(index)
    if context is None:
        context = prepare(public.group_key, commitments, message)
    else:
        _check_same_session(context, public.group_key, commitments, message)
    commitment = commitments[index]
    own_commitment = add(commitment.hiding, mul(commitment.binding, context.binding_factors[index]))
    weighted_challenge = Scalar(context.challenge * context.weights[index] % ORDER)
    if base_mul(share) != add(own_commitment, mul(public.verification_shares[index], weighted_challenge)):
        raise InvalidShare([index])


def aggregate(
    public: PublicKeyPackage,
    commitments: Mapping[Index, Commitment],
    message: bytes,
    shares: Mapping[Index, SignatureShare],
    context: SessionContext | None = None,
) -> bytes:
    """``aggregate`` of RFC 9591, 5.3: add up the shares, verify the signature, and only if that fails find who lied.

    Args:
        public: The public key package of the session's epoch.
        commitments: One per participant: t to n entries, all of this committee.
        message: The bytes that were signed.
        shares: Exactly one per commitment.
        context: What ``prepare`` made of the same session, if the caller has it.

    Returns:
        The 64-byte Ed25519 signature R ‖ z. It has been verified by libsodium.

    Raises:
        TooFewSigners: fewer than t commitments.
        UnknownIdentifier: a participant that is not of this committee.
        BadInput: code ``signature-shares`` when shares and commitments are not of the same participants.
        InvalidShare: the signature does not verify; its culprits are all whose shares do not verify, and only they.
        Bug: ``context`` is of another session, or every share verifies and the signature does not: then the
            verification shares of ``public`` do not belong to its group key.
    """
    if len(commitments) < public.threshold:
        raise TooFewSigners(len(commitments), public.threshold)
    for index in commitments:
        if index not in public.verification_shares:
            raise UnknownIdentifier(index)
    if shares.keys() != commitments.keys():
        raise BadInput("signature-shares", "not exactly one signature share per commitment")
    if context is None:
        context = prepare(public.group_key, commitments, message)
    else:
        _check_same_session(context, public.group_key, commitments, message)
    signature = context.group_commitment + encode_scalar(Scalar(sum(shares.values()) % ORDER))
    if ed25519.verify(public.group_key, message, signature):
        return signature
    culprits = []
    for index, share in shares.items():
        try:
            verify_share(public, index, share, commitments, message, context=context)
        except InvalidShare:
            culprits.append(index)
    if culprits:
        raise InvalidShare(culprits)
    raise Bug("all signature shares verify, the signature does not: verification shares of another key")


@lru_cache(maxsize=1024)
def _encode_identifier(index: Index) -> bytes:
    if not 1 <= index <= MAX_INDEX:
        raise UnknownIdentifier(index)
    return encode_scalar(Scalar(int(index)))


def _binding_factor_prefix(
    group_key: Element, commitments: Mapping[Index, Commitment], message: bytes
) -> tuple[bytes, list[tuple[Index, bytes]]]:
    """``rho_input_prefix`` of RFC 9591, 4.4, and the encoded identifiers, ascending."""
    encoded = [(index, _encode_identifier(index)) for index in sorted(commitments)]
    # "encoded_group_commitment = identifier ‖ hiding ‖ binding" of each, ascending (4.3). Every entry is of the same
    # length, so no two lists give the same bytes.
    parts: list[bytes] = []
    for index, identifier in encoded:
        commitment = commitments[index]
        parts += (identifier, commitment.hiding, commitment.binding)
    return group_key + h4(message) + h5(b"".join(parts)), encoded


def _check_same_session(
    context: SessionContext, group_key: Element, commitments: Mapping[Index, Commitment], message: bytes
) -> None:
    """A context of other commitments would sign with another session's challenge: a nonce used for two messages."""
    if context.group_key != group_key or context.commitments != commitments or context.message != message:
        raise Bug("the prepared context is of another session")
