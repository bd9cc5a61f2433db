"""An audit's report: a table for people, JSON for machines. base64, hex and times as in the HTTP API."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from common.wire.transcript import LOG_START_HASH
from signer_service.audit.facts import Ended, EpochFacts, KeyFacts, NoDeal, Remark, Report

_COLUMNS = (
    "epoch", "what", "when", "offset", "t-of-n", "dealt", "holders", "ready", "attested", "transcript", "erased",
)  # fmt: skip
_COUNTS = {
    "late-record": "records that came too late or belong to no open attempt",
    "idle-open": "Opens that were not needed any more, or fitted nothing",
    "stale-record": "records of seats that had seen too little of the log",
    "garbage-on-log": "records that are rubbish",
    "unknown-sender": "records signed by nobody who may say them",
    "foreign-roster": "rosters by another operator key",
}


def fingerprint(public_key: bytes) -> str:
    """``SHA256:`` and the unpadded base64 of the SHA-256 of the 32 raw bytes."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode().rstrip("=")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _time(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return None


# --- JSON ------------------------------------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """The whole report. ``problem`` is null if everything holds."""
    problem = report.problem
    return {
        "holds": problem is None,
        "problem": None
        if problem is None
        else {"code": problem.code, "detail": problem.detail, "offset": problem.offset},
        "topic": report.topic,
        "operator_key": fingerprint(report.operator_key),
        "records": report.records,
        "end": report.end,
        "running_hash": report.running_hash.hex(),
        "rosters": [
            {
                "offset": each.offset,
                "version": each.version,
                "log_generation": each.generation,
                "seats": list(each.seats),
                "keys": [{"key_id": key_id, "threshold": threshold} for key_id, threshold in each.keys],
            }
            for each in report.rosters
        ],
        "keys": [_key(each) for each in report.keys],
        "remarks": [
            {"offset": each.offset, "what": each.what, "seat": each.seat or None, "detail": each.detail}
            for each in report.remarks
        ],
        "counts": dict(sorted(report.counts.items())),
    }


def _key(key: KeyFacts) -> dict[str, Any]:
    newest = key.epochs[-1] if key.epochs else None
    return {
        "key_id": key.key_id,
        "public_key": None if newest is None else _base64(newest.public_key),
        "fingerprint": None if newest is None else fingerprint(newest.public_key),
        "epoch": 0 if newest is None else newest.epoch,
        "phase": key.phase or None,
        "epochs": [_epoch(each, current=each is newest) for each in key.epochs],
        "ended": [
            {
                "from_epoch": each.from_epoch,
                "attempt": each.number,
                "offset": each.offset,
                "phase": each.phase,
                "reason": each.reason,
                "awaited": list(each.awaited),
                "blamed": [{"seat": one.seat, "why": one.detail, "offset": one.offset} for one in each.blamed],
            }
            for each in key.ended
        ],
    }


def _epoch(epoch: EpochFacts, *, current: bool) -> dict[str, Any]:
    return {
        "epoch": epoch.epoch,
        "what": epoch.what,
        "reasons": list(epoch.reasons),
        "attempt": epoch.attempt,
        "opened_offset": epoch.opened,
        "commit_offset": epoch.committed,
        "time": _time(epoch.written_ms),
        "threshold": epoch.threshold,
        "seats": list(epoch.seats),
        "public_key": _base64(epoch.public_key),
        "dealt": list(epoch.qualified),
        "did_not_deal": _no_deal(epoch.no_deal),
        "verification_shares": {str(j): _base64(y) for j, y in sorted(epoch.verification_shares.items())},
        "ready": list(epoch.ready),
        "attested": list(epoch.attested),
        "transcript_hash": epoch.transcript_hash.hex(),
        "verification_hash": epoch.verification_hash.hex(),
        "erased": {str(seat): offset for seat, offset in sorted(epoch.erased.items())},
        "erased_missing": [] if current else list(epoch.missing),
        "can_be_stolen": current or epoch.can_be_stolen,
    }


def _no_deal(seats: Iterable[NoDeal]) -> list[dict[str, Any]]:
    return [{"seat": each.seat, "why": each.why, "offset": each.offset} for each in seats]


# --- text ------------------------------------------------------------------------------------------------------------


def as_lines(report: Report) -> Iterator[str]:
    """Lines for a person; the problem, if there is one, is not among them."""
    yield f"ceremony log {report.topic}: {report.records} records, the last at offset {report.end}"
    if report.running_hash != LOG_START_HASH:
        yield f"running hash {report.running_hash.hex()}"
    yield f"operator key {fingerprint(report.operator_key)}"
    for roster in report.rosters:
        keys = ", ".join(f"{key_id} (t={threshold})" for key_id, threshold in roster.keys)
        yield f"roster version {roster.version} from offset {roster.offset} on: seats {_seats(roster.seats)}; {keys}"
    for key in report.keys:
        yield ""
        yield from _key_lines(key)
    for remark in report.remarks:
        if remark.what not in _COUNTS:
            yield f"offset {remark.offset}: " + (f"seat {remark.seat}: " if remark.seat else "") + remark.detail
    for what, words in _COUNTS.items():
        if report.counts.get(what):
            yield f"{words}: {report.counts[what]}{_first(report.remarks, what)}"


def _first(remarks: Sequence[Remark], what: str) -> str:
    first = next((each.offset for each in remarks if each.what == what), None)
    return "" if first is None else f", the first at offset {first}"


def _key_lines(key: KeyFacts) -> Iterator[str]:
    if not key.epochs:
        yield f"key {key.key_id}: not made yet"
    else:
        newest = key.epochs[-1]
        yield f"key {key.key_id}: epoch {newest.epoch}, {newest.threshold} of {len(newest.seats)}"
        yield f"public key {_base64(newest.public_key)} {fingerprint(newest.public_key)}"
        yield from _table([_COLUMNS, *(_row(each, current=each is newest) for each in key.epochs)])
    for epoch in key.epochs:
        for each in epoch.no_deal:
            where = f" (offset {each.offset})" if each.offset is not None else ""
            yield f"epoch {epoch.epoch}: seat {each.seat} is not among the dealers: {each.why}{where}"
        if epoch is not key.epochs[-1] and epoch.can_be_stolen:
            yield f"epoch {epoch.epoch}: {epoch.threshold} of its shares may still exist: seats {_seats(epoch.missing)}"
    yield from map(_ended, key.ended)
    if key.phase:
        yield f"a ceremony is under way, in phase {key.phase}"


def _ended(ended: Ended) -> str:
    line = f"attempt {ended.number} from epoch {ended.from_epoch} came to nothing at offset {ended.offset}"
    line += f" in phase {ended.phase}: {ended.reason}"
    return line + (f"; awaited: seats {_seats(ended.awaited)}" if ended.awaited else "")


def _row(epoch: EpochFacts, *, current: bool) -> tuple[str, ...]:
    erased = _seats(sorted(epoch.erased)) if epoch.erased else ""
    if current:
        erased = "in use"
    elif epoch.missing:
        erased = f"{erased}, missing {_seats(epoch.missing)}".lstrip(", ")
    return (
        str(epoch.epoch),
        epoch.what,
        _time(epoch.written_ms) or "-",
        str(epoch.committed),
        f"{epoch.threshold}-of-{len(epoch.seats)}",
        _seats(epoch.qualified),
        _seats(sorted(epoch.verification_shares)),
        _seats(epoch.ready),
        _seats(epoch.attested),
        epoch.transcript_hash.hex()[:16] or "-",
        erased,
    )


def _seats(seats: Iterable[int]) -> str:
    return " ".join(map(str, seats)) or "-"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
