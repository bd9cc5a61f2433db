"""The operator's roster as a file, held against the one on the log.

The file is read at the start, before the log, and whenever it changes. A newer one is brought to the log; one that
contradicts what is known is an alarm, and nothing else.
"""

from common.errors import BadInput
from common.ids import Offset
from signer_service.protocol.ceremony_checkpoint import is_next_log, refuse_behind
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.findings import Finding, fact
from signer_service.protocol.machine import Note


def take_file(state: CeremonyState, raw: bytes) -> tuple[CeremonyState, tuple[Note, ...]]:
    """The file holds ``raw`` now: keep it, to be brought to the log, if it is newer than all that is known."""
    try:
        roster = state.trust.wire.read_roster(raw)
    except BadInput as bad:
        return state, (Note("roster-file-refused", {"code": bad.code}),)
    for known in (state.soft.roster, state.log.roster):
        if known is None:
            continue
        try:
            state.trust.wire.newer(known, roster)
        except BadInput as bad:
            return state, (Note("roster-alarm", {"code": bad.code, "version": roster.version}),)
    for checkpoint in roster.checkpoints if is_next_log(state.log.roster, roster.log_generation) else ():
        try:
            refuse_behind(
                checkpoint, roster.log_generation, state.seat, state.secrets, state.trust, keys=state.log.keys
            )
        except BadInput as bad:
            # We do not bring it. Who has nothing to lose may: the log decides, and what it costs us is an alarm.
            return state, (Note("roster-alarm", {"code": bad.code, "version": roster.version, "detail": bad.detail}),)
    if state.soft.roster is not None and roster.version <= state.soft.roster.version:
        return state, ()
    return state.with_soft(roster=roster, roster_raw=raw), ()


def against_file(state: CeremonyState, offset: Offset) -> tuple[CeremonyState, tuple[Finding, ...]]:
    """The record at ``offset`` brought a roster: the file was fed before, and whether they agree is seen only now.

    If not, the log counts.
    """
    file, log = state.soft.roster, state.log.roster
    if file is None or log is None:
        return state, ()
    try:
        state.trust.wire.newer(log, file)
    except BadInput as bad:
        alarm = fact("roster-alarm", offset, code=bad.code, version=file.version)
        return state.with_soft(roster=None, roster_raw=b""), (alarm,)
    return state, ()
