"""``python -m signer_service key-records``: the key records that a new ceremony log goes on from, as public text.

A ceremony log that is lost for good is replaced by another, and the operator says from which key records that one goes
on: ``provision --key-records FILE`` signs a roster with the next ``log_generation`` and these records in it. Where the
operator's key is, there is mostly no way to the broker, so the records travel as a file: a line of base64 for each key.
Nothing in it is secret, and nothing in it is believed because of where it came from.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from common.errors import BadInput, Unavailable
from common.ids import KeyId
from common.kafka.client import KafkaClient
from common.kafka.port import KafkaSettings
from common.kafka.security import read_security_file
from common.trust import check_key_record
from common.wire import topics
from common.wire.messages import KeyRecord
from signer_service.audit.facts import Logged
from signer_service.audit.source import read_log_of
from signer_service.settings import PREFIX, Settings
from signer_service.shell.keystore import read_public_key


def newest(raws: Iterable[bytes], operator_key: bytes, prefix: str) -> dict[KeyId, bytes]:
    """The record of the highest epoch of each key, of those that stand for themselves; the others are passed by.

    Raises:
        BadInput: code ``key-records``: two public keys under one name.
    """
    found: dict[KeyId, tuple[KeyRecord, bytes]] = {}
    for raw in raws:
        try:
            record = _checked(raw, operator_key, prefix)
        except BadInput:
            continue
        before = found.get(record.key_id)
        if before is not None and before[0].public_key != record.public_key:
            raise BadInput("key-records", f"key {record.key_id} has two public keys: these are records of two systems")
        if before is None or before[0].epoch < record.epoch:
            found[record.key_id] = (record, raw)
    return {key_id: found[key_id][1] for key_id in sorted(found)}


def of_broker(settings: Settings, echo: Callable[[str], None], note: Callable[[str], None]) -> int:
    """Read ``signer.v1.keys``; print the records with ``echo``, and what they are with ``note``. Returns the exit code.

    Raises:
        BadInput: a key file or a setting. Unavailable: the broker, the topic, or no record that is believed.
    """
    operator_key = read_public_key(settings.operator_pub, "operator public key")
    security = read_security_file(settings.kafka_security_file, f"{PREFIX}KAFKA_SECURITY_FILE")
    kafka = KafkaSettings(
        settings.kafka_bootstrap,
        f"signer-{settings.index}-key-records",
        topic_prefix=settings.topic_prefix,
        embedded=settings.kafka_embedded,
        security=security,
        variables=PREFIX,
    )
    topic = topics.keys(settings.topic_prefix).name
    raws: list[bytes] = []

    def take(logged: Logged) -> None:
        raws.append(logged.value)

    asyncio.run(read_log_of(partial(KafkaClient, kafka), topic, take))
    records = newest(raws, operator_key, settings.topic_prefix)
    if not records:
        raise Unavailable(
            "key-records",
            f"{topic} has no key record of this operator: start a signer that has a share, it writes its own",
        )
    for raw in records.values():
        record = _checked(raw, operator_key, settings.topic_prefix)
        public = base64.b64encode(record.public_key).decode()
        note(f"{record.key_id}: epoch {record.epoch}, public key {public}")
        echo(base64.b64encode(raw).decode())
    return 0


def read_file(path: Path, operator_key: bytes, prefix: str) -> tuple[bytes, ...]:
    """The records of a file as ``of_broker`` prints them, in the order of their keys' names.

    Raises:
        BadInput: code ``key-records``: no such file, a line that is none, or a record that cannot be believed.
    """
    try:
        lines = path.read_text("ascii").split()
        raws = [base64.b64decode(line, validate=True) for line in lines]
        checked = {_checked(raw, operator_key, prefix).key_id: raw for raw in raws}
    except OSError as error:
        raise BadInput("key-records", f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, binascii.Error):
        raise BadInput("key-records", f"{path} is not what `python -m signer_service key-records` prints") from None
    except BadInput as error:
        raise BadInput("key-records", f"{path}: not to be believed: {error.detail}") from error
    if len(checked) != len(raws) or not raws:
        raise BadInput("key-records", f"{path} must have one record of each key, and has {len(raws)} of {len(checked)}")
    return tuple(checked[key_id] for key_id in sorted(checked))


def _checked(raw: bytes, operator_key: bytes, prefix: str) -> KeyRecord:
    topic = topics.ceremony(prefix).name
    return check_key_record(raw, operator_key, topic=topic, pinned=None, previous=None)
