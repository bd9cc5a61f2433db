"""What a state directory holds, in words: for a person before an upgrade, or after an alarm. Never a secret.

Reading takes the directory's lock, so it is refused while the replica runs; it writes nothing unless a crash left a
save half done, which it then finishes as the replica would.
"""

import base64
from datetime import UTC, datetime
from pathlib import Path

from common.errors import BadInput
from common.ids import Index, Instant, KeyId, parse_index
from signer_service.protocol.ceremony_disk import Journal
from signer_service.protocol.ceremony_state import KeySecrets, OwnPart
from signer_service.protocol.snapshot import unpack
from signer_service.shell import keystore, sources
from signer_service.shell.journal import StateDir
from signer_service.shell.keystore import Sealer


def inspect(
    state_dir: Path, seat_dir: Path, operator_pub: Path, seat: int | None, *, insecure_dev: bool = False
) -> tuple[str, ...]:
    """Return the lines to show.

    Args:
        state_dir: As the replica has it. It must be there.
        seat_dir: Holds ``sealing.key``.
        operator_pub: The operator's public key file.
        seat: None: the name of ``seat_dir``.
        insecure_dev: The replica ran without a sealing key.

    Raises:
        BadInput: a file is missing, damaged or another's. One line.
        Unavailable: code ``locked``: the replica is running.
    """
    if not (state_dir / "journal").is_file():
        raise BadInput("state-file", f"{state_dir / 'journal'} is not there: nothing was ever saved in {state_dir}")
    system = sources.system()
    sealing = seat_dir / "sealing.key"
    if insecure_dev and not sealing.exists():
        key = keystore.insecure_sealing_key()
    else:
        key = keystore.read_secret_key(sealing, "sealing key")
    operator_key = keystore.read_public_key(operator_pub, "operator public key")
    directory = StateDir.open(state_dir, Sealer(key, operator_key, _seat(seat, seat_dir), system.entropy))
    try:
        saved = directory.load()
    finally:
        directory.close()
    if saved is None:
        return ("nothing is saved yet",)
    try:
        journal = unpack(Journal, saved.public)
        secrets = {key_id: unpack(KeySecrets, content.expose()) for key_id, content in saved.secrets.items()}
    except BadInput as error:
        raise BadInput(
            "state-file", f"{state_dir} was written by another version of this program ({error.detail}): use that one"
        ) from error
    return tuple(_lines(journal, secrets))


def _seat(seat: int | None, seat_dir: Path) -> Index:
    if seat is not None:
        return parse_index(seat)
    name = seat_dir.resolve().name
    if not name.isascii() or not name.isdigit():
        raise BadInput("index", f"{seat_dir} does not say which seat it is: add --seat")
    return parse_index(int(name))


def _lines(journal: Journal, secrets: dict[KeyId, KeySecrets]) -> list[str]:
    log = journal.log
    lines = [
        f"seat {journal.seat} on {journal.topic}",
        f"read up to offset {log.offset}",
        # Whole, so that it can be compared with what an audit of the log says, or another seat.
        f"running hash {log.running_hash.hex()}",
        f"roster version {log.roster.version}: {len(log.roster.seats)} seats" if log.roster else "no roster yet",
    ]
    if log.roster is not None and journal.seat not in {seat.index for seat in log.roster.seats}:
        lines.append("ALARM: this seat is not in the roster any more")
    if log.forked:
        lines.append("ALARM: the log was forked")
    for key_id in sorted({*log.keys, *secrets}):
        key, mine = log.keys.get(key_id), secrets.get(key_id)
        epoch = key.epoch if key is not None else 0
        lines.append(f"key {key_id}: " + (f"epoch {epoch}" if epoch else "not generated yet"))
        if key is not None and key.current is not None:
            record = key.current.record
            holders = [share.index for share in record.verification_shares]
            # As an audit, the API and the page write it.
            public_key = base64.b64encode(record.public_key).decode()
            lines.append(f"  public key {public_key}, {record.threshold} of seats {holders}")
            lines.append(f"  since {_time(journal.committed.get(key.key_id))}")
        for past in key.past if key is not None else ():
            missing = sorted(set(past.holders) - set(past.erased))
            lines.append(
                f"  epoch {past.epoch}: " + (f"not erased by seats {missing} yet" if missing else "erased by all")
            )
        if key is not None and key.heals:
            lines.append(f"  asked to be healed: seats {sorted(key.heals)}")
        if key is not None and key.attempt is not None:
            attempt = key.attempt
            lines.append(f"  ceremony: {attempt.kind.value}, attempt {attempt.number}, phase {attempt.phase.value}")
        held = sorted(share.epoch for share in mine.held) if mine is not None else []
        lines.append(f"  shares on this disk: of epochs {held}" if held else "  no share on this disk")
        if epoch and epoch not in held:
            lines.append(f"  ALARM: no share of epoch {epoch}: this seat cannot sign until it is healed")
        if mine is not None and mine.part is not None:
            lines.append(f"  of the open ceremony: {', '.join(_kept(mine.part))}")
    return lines


def _kept(part: OwnPart) -> list[str]:
    """Names of what is kept for one attempt, never its bytes."""
    items = (
        ("a transport key", part.transport),
        ("a staged share", part.staged),
        ("the Announce", part.announce),
        ("the Deal", part.deal),
        ("the Verdict", part.verdict),
        ("the Ready", part.ready),
    )
    return [name for name, value in items if value is not None] or ["nothing"]


def _time(at: Instant | None) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds") if at else "a time not known"
