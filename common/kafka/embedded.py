"""The in-process broker: librdkafka's mock cluster, which ships inside the confluent-kafka wheel.

It speaks the Kafka protocol on loopback, so other processes can connect while the one that made it lives. It is for
trying out and for fast tests, keeps everything in memory, and no figure measured on it means anything. Its public C
interface (``rdkafka_mock.h``) is called by ctypes, because the Python client does not offer it.

What it cannot do, and who has to know: no CreateTopics (only the owner makes topics); no topic configuration (nothing
expires, no LogAppendTime); each partition is cut to 5 MiB without a word; no static membership, fencing or
transactions; a join into a group that has members waits session.timeout.ms - 1000.
"""

import ctypes
import ctypes.util
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import confluent_kafka

from common.errors import Bug, Unavailable
from common.kafka.settings import KafkaSettings
from common.wire.topics import TopicSpec

_PRODUCER = 0  # rd_kafka_type_t: any client can be the mock cluster's anchor
_CONF_OK = 0
_ERRSTR_BYTES = 512
_COMMAND_GAP_S = 0.003


def _library() -> ctypes.CDLL:
    """The very librdkafka that the Python client has loaded (a second copy would be a second library)."""
    package = Path(confluent_kafka.__file__).parent
    places = (
        *package.parent.glob("confluent_kafka.libs/librdkafka*.so*"),  # Linux wheel
        *package.glob(".dylibs/librdkafka*.dylib"),  # macOS wheel
    )
    name = str(places[0]) if places else ctypes.util.find_library("rdkafka")
    if name is None:
        raise Unavailable("embedded-broker", "librdkafka was not found beside the confluent-kafka package")
    lib = ctypes.CDLL(name)
    pointer, text, integer, i32, i64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int32, ctypes.c_int64
    signatures: dict[str, tuple[object, tuple[object, ...]]] = {
        "rd_kafka_conf_new": (pointer, ()),
        "rd_kafka_conf_set": (integer, (pointer, text, text, text, ctypes.c_size_t)),
        "rd_kafka_new": (pointer, (integer, pointer, text, ctypes.c_size_t)),
        "rd_kafka_destroy": (None, (pointer,)),
        "rd_kafka_err2str": (text, (integer,)),
        "rd_kafka_mock_cluster_new": (pointer, (pointer, integer)),
        "rd_kafka_mock_cluster_destroy": (None, (pointer,)),
        "rd_kafka_mock_cluster_bootstraps": (text, (pointer,)),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (pointer, i32)),
        "rd_kafka_mock_topic_create": (integer, (pointer, text, integer, integer)),
        "rd_kafka_mock_partition_delete_records": (integer, (pointer, text, i32, i64)),
        "rd_kafka_mock_broker_set_down": (integer, (pointer, i32)),
        "rd_kafka_mock_broker_set_up": (integer, (pointer, i32)),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            (pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(integer)),
        ),
        "rd_kafka_mock_clear_request_errors": (None, (pointer, ctypes.c_int16)),
    }
    for symbol, (result, arguments) in signatures.items():
        function = getattr(lib, symbol)
        function.restype, function.argtypes = result, list(arguments)
    return lib


class EmbeddedBroker:
    """One in-process Kafka cluster; a context manager. Methods may be called from any thread of the owner process.

    Each takes a few milliseconds (a message to the broker's own thread and back).

    Raises:
        Unavailable: ``embedded-broker`` from the constructor when it cannot be started.
    """

    def __init__(self, brokers: int = 1) -> None:
        self._lib = _library()
        errstr = ctypes.create_string_buffer(_ERRSTR_BYTES)
        conf = self._lib.rd_kafka_conf_new()
        # The anchor client itself connects to nobody; what its broker threads say is noise.
        if self._lib.rd_kafka_conf_set(conf, b"log_level", b"0", errstr, _ERRSTR_BYTES) != _CONF_OK:
            raise Unavailable("embedded-broker", errstr.value.decode(errors="replace"))
        self._client: int | None = self._lib.rd_kafka_new(_PRODUCER, conf, errstr, _ERRSTR_BYTES)
        if not self._client:
            raise Unavailable("embedded-broker", errstr.value.decode(errors="replace"))
        self._cluster: int | None = self._lib.rd_kafka_mock_cluster_new(self._client, brokers)
        if not self._cluster:
            self._lib.rd_kafka_destroy(self._client)
            self._client = None
            raise Unavailable("embedded-broker", "the in-process cluster could not be started")
        # The default of 3 s is meant to gather members of a large group; here it would only delay every start.
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        time.sleep(_COMMAND_GAP_S)
        self.bootstrap: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        """``HOST:PORT[,HOST:PORT…]`` on loopback."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it; every client loses its connection and all records are gone. May be repeated."""
        if self._cluster is not None:
            self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
            self._cluster = None
        if self._client is not None:
            self._lib.rd_kafka_destroy(self._client)
            self._client = None

    def settings(self, client_id: str, topic_prefix: str = "") -> KafkaSettings:
        """How a client of this broker is configured."""
        return KafkaSettings(bootstrap=self.bootstrap, client_id=client_id, topic_prefix=topic_prefix, embedded=True)

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic. Must happen before any client asks about it.

        Raises:
            Unavailable: ``topic-create``, also when it exists.
        """
        self._check("topic-create", self._lib.rd_kafka_mock_topic_create(self._open(), name.encode(), partitions, 1))

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        """Make the topics of the table. Raises as ``create_topic``."""
        for spec in specs:
            self.create_topic(spec.name, spec.partitions)

    # What follows injects faults, for tests.

    def delete_records(self, name: str, partition: int, before_offset: int) -> None:
        """Drop records below an offset, as retention does."""
        code = self._lib.rd_kafka_mock_partition_delete_records(self._open(), name.encode(), partition, before_offset)
        self._check("embedded-broker", code)

    def set_down(self, broker: int = 1) -> None:
        """Cut a broker's connections and accept no new ones; records are kept."""
        self._check("embedded-broker", self._lib.rd_kafka_mock_broker_set_down(self._open(), broker))

    def set_up(self, broker: int = 1) -> None:
        """Accept connections again."""
        self._check("embedded-broker", self._lib.rd_kafka_mock_broker_set_up(self._open(), broker))

    def push_errors(self, api_key: int, errors: Sequence[int]) -> None:
        """Answer the next requests of that kind (Kafka's api key) with these error codes, one each, 0 being success."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._lib.rd_kafka_mock_push_request_errors_array(self._open(), api_key, len(errors), array)

    def clear_errors(self, api_key: int) -> None:
        """Forget what ``push_errors`` left over."""
        self._lib.rd_kafka_mock_clear_request_errors(self._open(), api_key)

    def _open(self) -> int:
        if self._cluster is None:
            raise Bug("the embedded broker is closed")
        return self._cluster

    def _check(self, code: str, result: int) -> None:
        # The broker's thread can miss the wake-up of a second command that follows at once, and then sleeps a second.
        time.sleep(_COMMAND_GAP_S)
        if result != 0:
            raise Unavailable(code, self._lib.rd_kafka_err2str(result).decode(errors="replace"))
