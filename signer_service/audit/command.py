"""``python -m signer_service audit``: reads a log from a broker or a file, and says whether it holds."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from common.errors import BadInput
from common.ids import KeyId, parse_key_id
from common.kafka.client import KafkaClient
from common.kafka.security import read_security_file
from common.kafka.settings import KafkaSettings
from common.wire import topics
from signer_service.app import make_log_trust
from signer_service.audit import log_file
from signer_service.audit.auditor import Auditor
from signer_service.audit.facts import DoesNotHold, Logged, Report
from signer_service.audit.report import as_json, as_lines
from signer_service.audit.source import read_log_of
from signer_service.shell.keystore import read_public_key

EXIT_HOLDS: Final = 0
EXIT_DOES_NOT_HOLD: Final = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. Exactly one of ``kafka`` (HOST:PORT) and ``log`` is given."""

    operator_pub: Path
    kafka: str | None = None
    log: Path | None = None
    topic_prefix: str | None = None
    kafka_security_file: Path | None = None
    save: Path | None = None
    key: str | None = None


def audit(asked: Asked, echo: Callable[[str], None], complain: Callable[[str], None], *, json: bool) -> int:
    """Audit, print the report with ``echo`` and what does not hold with ``complain``. Returns the exit code.

    Raises:
        BadInput: usage, a key file, a file that is no saved log, a key that the log does not know.
        Unavailable: the broker, or the topic.
    """
    if (asked.kafka is None) == (asked.log is None):
        raise BadInput("usage", "say where the log is: either --kafka HOST:PORT or --log FILE")
    if asked.log is not None and (asked.save is not None or asked.kafka_security_file is not None):
        raise BadInput("usage", "--save and --kafka-security-file go with --kafka")
    key = parse_key_id(asked.key) if asked.key is not None else None
    operator_key = read_public_key(asked.operator_pub, "operator public key")
    report = _of_file(asked, asked.log, operator_key) if asked.log is not None else _of_broker(asked, operator_key)
    report = _only(report, key)
    if json:
        echo(orjson.dumps(as_json(report), option=orjson.OPT_INDENT_2).decode())
    else:
        for line in as_lines(report):
            echo(line)
    problem = report.problem
    if problem is None:
        if not json:
            echo("everything holds")
        return EXIT_HOLDS
    where = f" at offset {problem.offset}" if problem.offset is not None else ""
    complain(f"signer_service: the log does not hold{where}: {problem.code}: {problem.detail}")
    return EXIT_DOES_NOT_HOLD


def _only(report: Report, key: KeyId | None) -> Report:
    """The report on one key. What does not hold is told whatever key it is about: it is one log."""
    if key is None or report.problem is not None:
        return report
    found = tuple(each for each in report.keys if each.key_id == key)
    if not found:
        known = ", ".join(each.key_id for each in report.keys) or "none"
        raise BadInput("unknown-key", f"the log does not know the key {key}; it knows: {known}")
    return replace(report, keys=found)


def _of_file(asked: Asked, path: Path, operator_key: bytes) -> Report:
    with log_file.opened(path) as reader:
        suffix = topics.ceremony("").name
        prefix = reader.topic.removesuffix(suffix)
        if not reader.topic.endswith(suffix) or asked.topic_prefix not in {None, prefix}:
            wanted = f"{asked.topic_prefix or '...'}{suffix}"
            raise BadInput("log-file", f"{path} is the log of the topic {reader.topic}, not {wanted}")
        auditor = Auditor(make_log_trust(prefix, operator_key), operator_key)
        try:
            for logged in reader:
                auditor.take(logged)
        except DoesNotHold as found:
            auditor.stop(found.problem)
        return auditor.report()


def _of_broker(asked: Asked, operator_key: bytes) -> Report:
    prefix = asked.topic_prefix or ""
    topic = topics.ceremony(prefix).name
    security = read_security_file(asked.kafka_security_file, "--kafka-security-file")
    settings = KafkaSettings(asked.kafka or "", "signer-audit", topic_prefix=prefix, security=security)
    auditor = Auditor(make_log_trust(prefix, operator_key), operator_key)

    with log_file.saving(asked.save, topic) if asked.save is not None else nullcontext() as writer:

        def take(logged: Logged) -> None:
            if writer is not None:
                writer.add(logged)
            auditor.take(logged)

        asyncio.run(read_log_of(partial(KafkaClient, settings), topic, take))
    return auditor.report()
