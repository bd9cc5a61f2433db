"""The composition root: settings in, a running replica out. The only place that chooses the broker."""

import asyncio
import signal
from collections.abc import Callable, Mapping

from common import collector
from common.errors import BadInput
from common.ids import Index
from common.kafka.client import KafkaClient
from common.kafka.port import Hooks
from common.kafka.security import read_security_file
from common.kafka.settings import KafkaSettings
from common.observability.admin import AdminServer
from common.observability.kafka_statistics import KafkaStatistics
from common.observability.logging import LogFormat, configure, get_logger
from common.observability.metrics import Metrics
from common.observability.spans import Spans, exporting
from common.secret import Secret
from common.trust import check_key_record, newer, read_roster
from common.wire import codec, topics
from common.wire.envelope import open_envelope
from common.wire.messages import Envelope, MsgToSign, PeerMessage, Role, Roster, SignPackage
from signer_service.protocol import ceremony
from signer_service.protocol.ceremony_disk import Durable, restore
from signer_service.protocol.ceremony_state import CeremonyState, CeremonyTiming
from signer_service.protocol.log_wire import LogTrust, LogWire
from signer_service.protocol.machine import Sender
from signer_service.protocol.wire import Wire
from signer_service.settings import PREFIX, Settings
from signer_service.shell import hardening, keystore, sources
from signer_service.shell.given import Given, Restored
from signer_service.shell.journal import Saved, StateDir
from signer_service.shell.keystore import Sealer
from signer_service.shell.roster_file import RosterWatch
from signer_service.shell.runner import Replica

_log = get_logger(__name__)


def run(settings: Settings) -> int:
    """Run one replica until SIGTERM or SIGINT. Returns 0.

    Raises:
        BadInput: settings or files are wrong.
        Unavailable: the state directory is in use, the admin port is taken, or Kafka ended us.
    """
    configure(LogFormat(settings.log_format), settings.log_level, "signer_service", settings.index)
    for problem in hardening.protect_memory():
        _log.warning(problem)
    spans = exporting(settings.spans_url, "signer", settings.index)
    # Before any secret is read: what is set aside here is freed late, if it is in a cycle.
    collector.settle()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_main(settings, spans))
    finally:
        if spans is not None:
            spans.close()
    return 0


def make_wire(prefix: str) -> Wire:
    """The signing machines' doors to bytes."""

    def open_peer(raw: bytes, identity_keys: Mapping[Index, bytes]) -> tuple[Sender, PeerMessage]:
        topic = codec.decode(raw, Envelope).topic
        if not topic.startswith(f"{prefix}signer.v1.peer"):
            raise BadInput("wrong-topic", "not a record between replicas", "topic")

        def keys_of(role: Role, index: int) -> tuple[bytes, ...]:
            key = identity_keys.get(Index(index)) if role is Role.SIGNER else None
            return () if key is None else (key,)

        opened = open_envelope(raw, topic, keys_of)
        return Sender(Index(opened.index), opened.boot_id), codec.decode_peer(opened.payload)

    return Wire(
        decode_request=lambda raw: codec.decode(raw, MsgToSign),
        encode_package=codec.encode,
        decode_package=lambda raw: codec.decode(raw, SignPackage),
        open_envelope=open_peer,
    )


def make_log_trust(prefix: str, operator_key: bytes) -> LogTrust:
    """The ceremony machine's doors to bytes, bound to the operator's key."""
    topic = topics.ceremony(prefix).name
    return LogTrust(
        topic=topic,
        wire=LogWire(
            decode_envelope=lambda raw: codec.decode(raw, Envelope),
            decode_record=codec.decode_ceremony,
            encode_record=codec.encode,
            decode_request=lambda raw: codec.decode(raw, MsgToSign),
            read_roster=lambda raw: read_roster(raw, operator_key),
            newer=newer,
            check_key_record=lambda raw: check_key_record(raw, operator_key, topic=topic, pinned=None, previous=None),
        ),
    )


async def _main(settings: Settings, spans: Spans | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    replica: Replica | None = None

    def on_state(up: bool) -> None:
        if replica is not None:
            replica.kafka_state(up)

    def on_fatal(line: str) -> None:
        if replica is not None:
            replica.fatal(line)

    security = read_security_file(settings.kafka_security_file, f"{PREFIX}KAFKA_SECURITY_FILE")
    kafka = KafkaClient(
        KafkaSettings(
            bootstrap=settings.kafka_bootstrap,
            client_id=f"signer-{settings.index}",
            topic_prefix=settings.topic_prefix,
            embedded=settings.kafka_embedded,
            security=security,
            variables=PREFIX,
        ),
        Hooks(on_state=on_state, on_fatal=on_fatal, on_statistics=KafkaStatistics(metrics).take),
    )
    given = await asyncio.to_thread(read_files, settings, metrics, spans)
    try:
        replica = Replica(given, kafka)
        admin = AdminServer(settings.admin_host, settings.port, replica.liveness, replica.readiness, metrics.render)
        loop.add_signal_handler(signal.SIGHUP, replica.look_at_roster)
        await admin.start()
        try:
            await replica.run(stop)
        finally:
            await admin.close()
    finally:
        given.directory.close()


def read_files(settings: Settings, metrics: Metrics, spans: Spans | None = None) -> Given:
    """Read and check every file, before anything is connected. The state directory is locked from then on.

    Raises:
        BadInput: one line that names the file and the remedy.
        Unavailable: code ``locked``.
    """
    system = sources.system()
    operator_key = keystore.read_public_key(settings.operator_pub, "operator public key")
    identity = keystore.read_secret_key(settings.identity_key, "identity key")
    watch = RosterWatch(settings.roster, operator_key)
    roster_raw, roster = watch.first()
    boot_id = sources.new_boot_id(system.entropy)
    sealer = Sealer(_sealing_key(settings), operator_key, settings.seat, system.entropy)
    trust = make_log_trust(settings.topic_prefix, operator_key)
    directory = StateDir.open(settings.state_dir, sealer)
    try:
        saved = directory.load()
        state = _restore(settings, saved, trust, roster)
    except BaseException:
        directory.close()
        raise
    return Given(
        settings=settings,
        boot_id=boot_id,
        identity=identity,
        roster_watch=watch,
        roster_raw=roster_raw,
        roster=roster,
        wire=make_wire(settings.topic_prefix),
        restored=Restored(state, saved),
        directory=directory,
        sources=system,
        metrics=metrics,
        spans=spans,
    )


def _restore(settings: Settings, saved: Saved | None, trust: LogTrust, roster: Roster) -> CeremonyState:
    timing = CeremonyTiming(
        patience_ms=settings.phase_patience_ms,
        absent_holder_ms=settings.absent_holder_ms,
        heal_delay_ms=settings.heal_delay_ms,
        refresh_interval_ms=settings.refresh_interval_ms,
        min_interval_ms=settings.min_interval_ms,
        drain_window_ms=settings.epoch_drain_ms,
    )
    if saved is None:
        return ceremony.start(settings.seat, trust, timing)
    kept = Durable(saved.public, saved.secrets)
    return restore(kept, settings.seat, trust, timing, generation=roster.log_generation, checkpoints=roster.checkpoints)


def _sealing_key(settings: Settings) -> Secret[bytes]:
    path = settings.sealing_key
    if settings.insecure_dev and not path.exists():
        _log.warning("INSECURE: no sealing key, so whoever reads the state directory has this seat's shares")
        return keystore.insecure_sealing_key()
    try:
        return keystore.read_secret_key(path, "sealing key")
    except BadInput as error:
        if path.exists():
            raise
        raise BadInput("key-file", f"{error.detail}; for a trial only: --insecure-dev") from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not everywhere, and nothing depends on it but speed
    except ImportError:
        return None
    return uvloop.new_event_loop
