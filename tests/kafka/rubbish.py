"""Records that no well-behaved client writes; anybody with Kafka credentials can."""

import ctypes

from confluent_kafka import Producer

from common.kafka.embedded import _library

_VTYPE_END, _VTYPE_TOPIC, _VTYPE_PARTITION, _VTYPE_VALUE, _VTYPE_HEADER, _VTYPE_MSGFLAGS = 0, 1, 3, 4, 9, 7
_COPY = 2


def write(bootstrap: str, topic: str) -> None:
    """Write a null value, a header name that is not UTF-8, and a null header, in this order, to partition 0."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    producer.produce(topic, None, partition=0)
    assert producer.flush(10.0) == 0
    _header_name(bootstrap, topic, b"\xff\xfe\x80", b"bad header name")
    producer.produce(topic, b"null header", partition=0, headers=[("name", None)])
    assert producer.flush(10.0) == 0


def _header_name(bootstrap: str, topic: str, name: bytes, value: bytes) -> None:
    # The Python client encodes names itself; the C interface takes any bytes.
    lib = _library()
    lib.rd_kafka_producev.restype = ctypes.c_int
    lib.rd_kafka_flush.argtypes = [ctypes.c_void_p, ctypes.c_int]
    errstr = ctypes.create_string_buffer(512)
    conf = lib.rd_kafka_conf_new()
    assert lib.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), errstr, 512) == 0
    client = lib.rd_kafka_new(0, conf, errstr, 512)
    assert client, errstr.value
    c, size = ctypes.c_int, ctypes.c_size_t
    arguments = (
        *(c(_VTYPE_TOPIC), ctypes.c_char_p(topic.encode())),
        *(c(_VTYPE_PARTITION), ctypes.c_int32(0)),
        *(c(_VTYPE_MSGFLAGS), c(_COPY)),
        *(c(_VTYPE_VALUE), ctypes.c_char_p(value), size(len(value))),
        *(c(_VTYPE_HEADER), ctypes.c_char_p(name), ctypes.c_char_p(b"x"), ctypes.c_ssize_t(1)),
        c(_VTYPE_END),
    )
    assert lib.rd_kafka_producev(ctypes.c_void_p(client), *arguments) == 0
    assert lib.rd_kafka_flush(client, 10_000) == 0
    lib.rd_kafka_destroy(client)
