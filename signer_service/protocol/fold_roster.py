"""Rosters on the log: the first of a higher version that the operator signed counts, whoever brought it.

It ends every open ceremony. One of a new log generation says from which key records to go on, and with it the running
hash begins anew: a seat that was shown something else before, whose hash could never be ours, is one of us again.
"""

from dataclasses import replace

from common.errors import BadInput
from common.ids import Index, KeyId
from common.wire.messages import (
    NO_SIGNATURE,
    Envelope,
    KeyRecord,
    Ready,
    Roster,
)
from common.wire.signatures import ENVELOPE_DOMAIN, is_signed_by
from common.wire.transcript import LOG_START_HASH, next_log_hash
from signer_service.frost.group import Element
from signer_service.frost.sharing import interpolate_group_key
from signer_service.protocol import fold_closing
from signer_service.protocol.findings import Finding, Folded, Said, fact
from signer_service.protocol.fold_sender import check_history
from signer_service.protocol.log_state import (
    HASH_PREFIX,
    PROTOCOL_VERSION,
    Commit,
    Committee,
    KeyLog,
    LogState,
    identities,
)
from signer_service.protocol.log_wire import LogTrust


def take_roster(before: LogState, state: LogState, envelope: Envelope, said: Said, trust: LogTrust) -> Folded:
    """Take a Roster. ``before`` is the state without this record, ``state`` has it in its running hash."""
    # The operator's signature is what counts; a seat that only the new roster knows may bring it.
    raw = envelope.payload
    try:
        roster = trust.wire.read_roster(raw)
    except BadInput as bad:
        return Folded(state, (fact("foreign-roster", said.offset, code=bad.code),))
    findings: tuple[Finding, ...] = ()
    known = [identities(each).get(said.seat) for each in (roster, state.roster) if each is not None]
    if any(key is not None and is_signed_by(ENVELOPE_DOMAIN, said.raw, key) for key in known):
        state, findings = check_history(before, state, envelope, said)
    if state.roster is not None:
        try:
            if trust.wire.newer(state.roster, roster) is not roster or roster.version == state.roster.version:
                return Folded(state, findings)
        except BadInput as bad:
            return Folded(state, (*findings, fact("roster-alarm", said.offset, code=bad.code)))
    if roster.protocol_version > PROTOCOL_VERSION:
        # Not folded, and not passed by: the journal stays before it, and a newer program goes on from there.
        halted = fact("protocol-version", said.offset, version=roster.protocol_version)
        return Folded(replace(before, halted_by=roster.protocol_version), (halted,))
    if begins_anew(state.roster, roster):
        state, found = _from_checkpoints(state, roster, said, trust)
        findings += found
    keys: dict[KeyId, KeyLog] = {}
    for key in state.keys.values():
        if key.attempt is not None:
            findings += (fold_closing.ended(key.attempt, said.offset, "roster"),)
        keys[key.key_id] = replace(key, opens=(), attempt=None, ended=key.ended + (key.attempt is not None), heals={})
    for wanted in roster.keys:
        keys.setdefault(wanted.key_id, KeyLog(wanted.key_id))
    accepted = fact("roster-accepted", said.offset, version=roster.version, seats=len(roster.seats))
    return Folded(replace(state, roster=roster, roster_raw=raw, keys=keys), (*findings, accepted))


def begins_anew(known: Roster | None, roster: Roster) -> bool:
    """Whether nothing that stands before ``roster`` counts any more, ``known`` being the newest one so far."""
    return roster.log_generation > known.log_generation if known is not None else bool(roster.checkpoints)


def _from_checkpoints(
    state: LogState, roster: Roster, said: Said, trust: LogTrust
) -> tuple[LogState, tuple[Finding, ...]]:
    """The operator says from which key records the log goes on: nothing that was in it before counts."""
    keys: dict[KeyId, KeyLog] = {}
    findings: list[Finding] = []
    for raw in roster.checkpoints:
        try:
            record = trust.wire.check_key_record(raw)
            held = trust.wire.read_roster(record.roster)
            attested = [trust.wire.decode_envelope(each) for each in record.attestations]
            ready = trust.wire.decode_record(attested[0].payload)
        except BadInput as bad:
            findings.append(fact("checkpoint-refused", said.offset, code=bad.code))
            continue
        if not interpolates(record):
            findings.append(fact("checkpoint-refused", said.offset, code="interpolation"))
            continue
        committee = Committee(record.threshold, identities(held))
        # Only who attests is known to hold a share, and nobody is known to have seen this commit: shares of epochs
        # before it stay until r seats have said so here, too.
        expected = replace(ready, share_proof=NO_SIGNATURE) if isinstance(ready, Ready) else None
        holders = tuple(sorted(Index(each.index) for each in attested))
        keys[record.key_id] = KeyLog(record.key_id, Commit(record, said.offset, committee, expected, holders))
    running = next_log_hash(LOG_START_HASH, said.offset, said.raw)
    window = running[:HASH_PREFIX]
    return replace(state, keys=keys, forked=False, running_hash=running, window=window), tuple(findings)


def interpolates(record: KeyRecord) -> bool:
    """Whether every verification share lies on the one polynomial whose constant term is the public key."""
    shares = {share.index: Element(share.element) for share in record.verification_shares}
    first = sorted(shares)[: record.threshold - 1]
    rest = sorted(shares)[record.threshold - 1 :]
    return bool(rest) and all(interpolate_group_key(shares, (*first, j)) == record.public_key for j in rest)
