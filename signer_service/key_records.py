"""``python -m signer_service key-records``: the key records that a new ceremony log goes on from, as public text.

A ceremony log that is lost for good is replaced by another, and the operator says from which key records that one goes
on: ``provision --key-records FILE`` signs a roster with the next ``log_generation`` and these records in it. Where the
operator's key is, there is mostly no way to the broker, so the records travel as a file: which generation is left, and
a line of base64 for each key. Nothing in it is secret, and nothing in it is believed because of where it came from.

A log that goes on from an older epoch than seats hold may cost the key, and ``signer.v1.keys`` may be old. So it is
compared with what seats say, and with the state directory of a seat that is stopped, if that is asked for. Where an
older epoch is asked for, of which t seats still hold shares, its record is looked for on the ceremony log as well.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from common.errors import BadInput, Unavailable
from common.ids import KeyId, parse_key_id
from common.kafka.client import KafkaClient
from common.kafka.security import read_security_file
from common.kafka.settings import KafkaSettings
from common.trust import check_key_record, facts, read_roster
from common.wire import codec, topics
from common.wire.messages import KeyRecord, Roster
from signer_service.audit import log_file
from signer_service.audit.facts import DoesNotHold, Logged
from signer_service.audit.source import read_log_of
from signer_service.new_log import NewLog
from signer_service.old_records import OldRecords
from signer_service.protocol.ceremony_disk import Journal
from signer_service.protocol.ceremony_state import KeySecrets
from signer_service.protocol.snapshot import unpack
from signer_service.seats_word import Said, SeatsWord
from signer_service.settings import PREFIX, Settings
from signer_service.shell import keystore, sources
from signer_service.shell.journal import StateDir
from signer_service.shell.keystore import Sealer, read_public_key

LEAVES: Final = "leaves-log-generation:"
"""Begins the line that says which log is lost."""

Found = Mapping[KeyId, Mapping[int, bytes]]
"""By key and epoch: a record that stands for itself."""
Epochs = Mapping[KeyId, int]


def found_in(raws: Iterable[bytes], operator_key: bytes, prefix: str) -> Found:
    """Those that stand for themselves; the others are passed by.

    Raises:
        BadInput: code ``key-records``: two public keys under one name, or two different records of one epoch.
    """
    found: dict[KeyId, dict[int, bytes]] = {}
    for raw in raws:
        try:
            record = _checked(raw, operator_key, prefix)
        except BadInput:
            continue
        of_key = found.setdefault(record.key_id, {})
        for epoch, other in of_key.items():
            _check_together(codec.decode(other, KeyRecord), epoch, record)
        of_key.setdefault(record.epoch, raw)
    return found


def _check_together(other: KeyRecord, epoch: int, record: KeyRecord) -> None:
    if other.public_key != record.public_key:
        raise _refuse(f"key {record.key_id} has two public keys: these are records of two systems")
    if epoch == record.epoch and facts(other) != facts(record):
        raise _refuse(f"key {record.key_id} has two different records of epoch {epoch}: its log was forked there")


def choose(found: Found, asked: Epochs, said: Said) -> dict[KeyId, bytes]:
    """The record of each key's newest epoch, or of the one that is asked for.

    Raises:
        BadInput: code ``key-records``: there is none of the epoch that is asked for.
        Unavailable: the same code: seats know of a newer epoch than any record that was found.
    """
    for key_id, epoch in asked.items():
        if epoch not in found.get(key_id, {}):
            there = ", ".join(map(str, sorted(found.get(key_id, {})))) or "none"
            raise _refuse(f"there is no record of epoch {epoch} of key {key_id}; found were epochs: {there}")
    for key_id in sorted(said.keys() - asked.keys()):
        newest = max(found.get(key_id, {}), default=0)
        ahead = {seat: epoch for seat, epoch in said[key_id].items() if epoch > newest}
        if ahead:
            who = ", ".join(f"seat {seat} is in epoch {epoch}" for seat, epoch in sorted(ahead.items()))
            raise Unavailable(
                "key-records",
                f"key {key_id}: {who}, and the newest record found is of epoch {newest}. A log that goes on from there "
                "leaves their shares behind: start the signers, they write their record anew, or read a stopped one's "
                f"with --own-state; only where none of them can come back: --epoch {key_id}:N",
            )
    return {key_id: found[key_id][asked.get(key_id, max(found[key_id]))] for key_id in sorted(found)}


def of_system(
    settings: Settings,
    asked: Epochs,
    echo: Callable[[str], None],
    note: Callable[[str], None],
    *,
    own_state: bool,
    log: Path | None = None,
) -> int:
    """Print the records with ``echo``, and what they are and were compared with by ``note``. Returns the exit code.

    Args:
        settings: As ``run`` has them: broker, operator, roster, and with ``own_state`` the state directory, too.
        asked: Epochs to take instead of the newest.
        echo: Standard output.
        note: Standard error.
        own_state: Read this seat's state directory as well; the replica must not be running.
        log: A ceremony log that `audit --save` wrote; else the one on the broker is read where an epoch of ``asked``
            is found nowhere else. That it is lost, cut or empty is said and no error.

    Raises:
        BadInput: a file or a setting, or records that contradict each other. Unavailable: the broker, a topic, a newer
            epoch of which there is no record, no record that is believed, or a replica that is running.
    """
    operator_key = read_public_key(settings.operator_pub, "operator public key")
    roster = _roster(settings, operator_key)
    own, said_by_disk = _own_state(settings, operator_key, note) if own_state else ([], {})
    beats = topics.presence(settings.topic_prefix).name
    word = SeatsWord(beats, roster)
    for key_id, epoch in said_by_disk.items():
        word.heard(key_id, settings.seat, epoch)
    topic = topics.keys(settings.topic_prefix).name
    raws = [*own]
    # The beats first: what a seat commits and says in between is found among the records then.
    asyncio.run(_read(settings, beats, lambda logged: word.take(logged.value)))
    asyncio.run(_read(settings, topic, lambda logged: raws.append(logged.value)))
    found = found_in(raws, operator_key, settings.topic_prefix)
    if missing := {key_id: epoch for key_id, epoch in asked.items() if epoch not in found.get(key_id, {})}:
        old = OldRecords(missing, settings.topic_prefix, operator_key)
        try:
            _read_log(settings, log, old.take)
        except (Unavailable, DoesNotHold) as error:
            note(f"not all of the ceremony log was read: {error}")
        found = found_in([*raws, *old.found()], operator_key, settings.topic_prefix)
    records = choose(found, asked, word.said)
    if not records:
        raise Unavailable(
            "key-records",
            f"{topic} has no key record of this operator: start a signer that has a share, it writes its own",
        )
    for line in _lines(found, records, asked, word.said, roster):
        note(line)
    echo(f"{LEAVES}{roster.log_generation}")
    for raw in records.values():
        echo(base64.b64encode(raw).decode())
    return 0


def _lines(found: Found, records: Mapping[KeyId, bytes], asked: Epochs, said: Said, roster: Roster) -> Iterable[str]:
    for key_id, raw in records.items():
        record = codec.decode(raw, KeyRecord)
        yield f"{key_id}: epoch {record.epoch}, public key {base64.b64encode(record.public_key).decode()}"
        if record.epoch < max(found[key_id]):
            yield f"{key_id}: NOT the newest: there is a record of epoch {max(found[key_id])}"
        if key_id in asked:
            seats_then = " ".join(str(share.index) for share in record.verification_shares)
            yield (
                f"{key_id}: {record.threshold} of the seats {seats_then} have to hold their shares of epoch "
                f"{record.epoch} (see `inspect`): else nobody can sign"
            )
        seats = [f"seat {seat} is in epoch {epoch}" for seat, epoch in sorted(said.get(key_id, {}).items())]
        yield f"{key_id}: {', '.join(seats) if seats else 'no seat was heard: compare with `signer-flow status`'}"
    for key in roster.keys:
        if key.key_id not in records:
            yield (
                f"{key.key_id}: no record, and no seat knows an epoch of it: if no ceremony ever made it, "
                f"give `provision` --never-made {key.key_id}"
            )
    yield f"the log of generation {roster.log_generation} is left"


async def _read(settings: Settings, topic: str, take: Callable[[Logged], None]) -> None:
    kafka = KafkaSettings(
        settings.kafka_bootstrap,
        f"signer-{settings.index}-key-records",
        topic_prefix=settings.topic_prefix,
        embedded=settings.kafka_embedded,
        security=read_security_file(settings.kafka_security_file, f"{PREFIX}KAFKA_SECURITY_FILE"),
        variables=PREFIX,
    )
    await read_log_of(partial(KafkaClient, kafka), topic, take)


def _read_log(settings: Settings, path: Path | None, take: Callable[[Logged], None]) -> None:
    topic = topics.ceremony(settings.topic_prefix).name
    if path is None:
        try:
            asyncio.run(_read(settings, topic, take))
        except BadInput as error:
            if error.code != "partitions":
                raise
            # A lost log that a broker made anew by itself.
            raise Unavailable(error.code, error.detail) from None
        return
    with log_file.opened(path) as reader:
        if reader.topic != topic:
            raise BadInput("log-file", f"{path} is the log of the topic {reader.topic}, not {topic}")
        for logged in reader:
            take(logged)


def _roster(settings: Settings, operator_key: bytes) -> Roster:
    try:
        return read_roster(settings.roster.read_bytes(), operator_key)
    except OSError as error:
        raise BadInput("roster-file", f"{settings.roster} cannot be read: {error.strerror}") from error
    except BadInput as error:
        raise BadInput("roster-file", f"roster {settings.roster}: {error.detail}") from error


def _own_state(
    settings: Settings, operator_key: bytes, note: Callable[[str], None]
) -> tuple[list[bytes], dict[KeyId, int]]:
    """The records that our journal has, and the newest epoch of each key that it or a share speaks of."""
    if not (settings.state_dir / "journal").is_file():
        raise BadInput("state-file", f"{settings.state_dir / 'journal'} is not there: nothing was ever saved there")
    insecure = settings.insecure_dev and not settings.sealing_key.exists()
    key = keystore.insecure_sealing_key() if insecure else keystore.read_secret_key(settings.sealing_key, "sealing key")
    directory = StateDir.open(settings.state_dir, Sealer(key, operator_key, settings.seat, sources.system().entropy))
    try:
        saved = directory.load()
    finally:
        directory.close()
    if saved is None:
        return [], {}
    keys = unpack(Journal, saved.public).log.keys
    raws = [codec.encode(each.current.record) for each in keys.values() if each.current is not None]
    newest: dict[KeyId, int] = {key_id: each.epoch for key_id, each in keys.items()}
    for key_id, content in saved.secrets.items():
        held = sorted(share.epoch for share in unpack(KeySecrets, content.expose()).held)
        note(f"{key_id}: shares on this disk: of epochs {held}" if held else f"{key_id}: no share on this disk")
        newest[key_id] = max([newest.get(key_id, 0), *held])
    return raws, newest


def parse_epoch(text: str) -> tuple[KeyId, int]:
    """Return ``ID:N`` as a pair.

    Raises:
        BadInput: codes ``epoch`` and ``key-id``.
    """
    name, found, epoch = text.rpartition(":")
    if not found or not epoch.isascii() or not epoch.isdigit() or not 0 < len(epoch) < 10:
        raise BadInput("epoch", f"--epoch is ID:EPOCH, such as default:7, not {text[:80]!r}")
    return parse_key_id(name), int(epoch)


def read_file(path: Path, operator_key: bytes, prefix: str, never_made: Iterable[KeyId] = ()) -> NewLog:
    """What ``of_system`` printed, the records in the order of their keys' names.

    Raises:
        BadInput: code ``key-records``: no such file, a line that is none, or a record that cannot be believed.
    """
    try:
        first, *lines = path.read_text("ascii").split() or [""]
        number = first.removeprefix(LEAVES)
        if number == first or not number.isdigit() or len(number) > 9:
            raise _refuse(
                f"{path} is not what `python -m signer_service key-records` prints: its first line is missing"
            )
        raws = [base64.b64decode(line, validate=True) for line in lines]
    except OSError as error:
        raise _refuse(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, binascii.Error):
        raise _refuse(f"{path} is not what `python -m signer_service key-records` prints") from None
    try:
        checked = {_checked(raw, operator_key, prefix).key_id: raw for raw in raws}
    except BadInput as error:
        raise _refuse(f"{path}: not to be believed: {error.detail}") from error
    if len(checked) != len(raws) or not raws:
        raise _refuse(f"{path} must have one record of each key, and has {len(raws)} of {len(checked)}")
    return NewLog(int(number), tuple(checked[key_id] for key_id in sorted(checked)), frozenset(never_made))


def _checked(raw: bytes, operator_key: bytes, prefix: str) -> KeyRecord:
    topic = topics.ceremony(prefix).name
    return check_key_record(raw, operator_key, topic=topic, pinned=None, previous=None)


def _refuse(detail: str) -> BadInput:
    return BadInput("key-records", detail)
