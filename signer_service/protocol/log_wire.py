"""What the ceremonies need of bytes, handed to them: a machine may not reach the Avro library, not even indirectly.

The composition root fills it from ``common.wire.codec`` and ``common.trust``, which do. Signatures are checked with
``common.wire.signatures``, which is pure.
"""

from collections.abc import Callable
from dataclasses import dataclass

from common.wire.messages import CeremonyRecord, Envelope, KeyRecord, MsgToSign, Roster


@dataclass(frozen=True, slots=True)
class LogWire:
    """The doors from bytes to values and back. Each raises ``BadInput`` and nothing else.

    ``decode_envelope(raw)`` gives the form of an envelope, its signature unchecked (``codec.decode(raw, Envelope)``).

    ``decode_record(payload)`` gives a ceremony record (``codec.decode_ceremony``); ``encode_record`` its one encoding.

    ``decode_request(raw)`` gives the MsgToSign in ``raw``, its signature unchecked.

    ``read_roster(raw)`` gives the roster in ``raw`` if the operator signed it and it makes sense; ``newer(old, new)``
    the one that counts (``common.trust``).

    ``check_key_record(raw)`` gives the key record in ``raw`` if it stands for itself under the operator's key and this
    system's ceremony topic (``common.trust.check_key_record``, nothing pinned, no predecessor).
    """

    decode_envelope: Callable[[bytes], Envelope]
    decode_record: Callable[[bytes], CeremonyRecord]
    encode_record: Callable[[CeremonyRecord], bytes]
    decode_request: Callable[[bytes], MsgToSign]
    read_roster: Callable[[bytes], Roster]
    newer: Callable[[Roster, Roster], Roster]
    check_key_record: Callable[[bytes], KeyRecord]


@dataclass(frozen=True, slots=True)
class LogTrust:
    """Whose log this is: the full name of its topic, prefix included, and the doors, bound to the operator's key."""

    topic: str
    wire: LogWire
