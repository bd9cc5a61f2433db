"""What a seat answers to an API pod that asks for a refresh: a plain function of the ceremony machine's state.

The coordinator is handed it (``coordinator.start``) and changes nothing by asking it; what is accepted is fed to the
ceremony machine as ``RefreshAsked``, which looks at all of it again.
"""

from common.errors import BadInput
from common.ids import Instant, KeyId
from common.wire.messages import Accepted, RefusalCode, Refused
from signer_service.protocol.ceremony_opening import check_refresh, live_holders, out_of_reach, refusal
from signer_service.protocol.ceremony_state import CeremonyState
from signer_service.protocol.coordinator_state import refused
from signer_service.protocol.log_state import KeyLog, dealing_committee

_DETAIL_CHARS = 512


def decide_refresh(state: CeremonyState, key_id: KeyId, raw: bytes, now: Instant) -> Accepted | Refused:
    """Decide about the record ``raw``, as received, which asks for a refresh of ``key_id``.

    Returns:
        Accepted if this seat signs an Open once it is told. A refusal is this seat's view alone: the pod asks as many
        seats as cannot all be lying before it believes one.
    """
    code = refusal(state, key_id, now)
    if code is RefusalCode.QUORUM_LOST:
        return refused(code, _who_is_missing(state, state.log.keys[key_id]))
    if code is RefusalCode.REFRESH_UNAVAILABLE and key_id in state.log.keys:
        return refused(code, out_of_reach(state, state.log.keys[key_id])[:_DETAIL_CHARS])
    if code is not None:
        return refused(code)
    try:
        check_refresh(state, key_id, raw, now)
    except BadInput as bad:
        return refused(RefusalCode.EXPIRED if bad.code == "expired" else RefusalCode.BAD_REQUEST, bad.detail)
    return Accepted(key_id, state.log.keys[key_id].epoch)


def _who_is_missing(state: CeremonyState, key: KeyLog) -> str:
    committee = dealing_committee(state.log, key.key_id)
    if committee is None:
        return ""
    missing = ", ".join(map(str, sorted(set(committee.identities) - live_holders(state, key))))
    return f"a refresh takes {committee.commit_quorum} seats with a share; missing: {missing}"[:_DETAIL_CHARS]
