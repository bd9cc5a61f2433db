"""What the signing machines need of bytes, handed to them: they may not reach the Avro library, not even indirectly.

The composition root fills it from ``common.wire.codec`` and ``common.wire.envelope``, which import it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from common.ids import Index
from common.wire.messages import MsgToSign, PeerMessage, SignPackage
from signer_service.protocol.machine import Sender


@dataclass(frozen=True, slots=True)
class Wire:
    """The doors from bytes to values and back.

    ``decode_request(raw)`` gives the MsgToSign in ``raw``. Raises ``BadInput``.

    ``encode_package(package)`` gives the bytes of a SignPackage; ``decode_package`` reads them. Raises ``BadInput``.

    ``open_envelope(raw, identity_keys)`` gives the seat that signed a peer record, and the record. Raises ``BadInput``.
    """

    decode_request: Callable[[bytes], MsgToSign]
    encode_package: Callable[[SignPackage], bytes]
    decode_package: Callable[[bytes], SignPackage]
    open_envelope: Callable[[bytes, Mapping[Index, bytes]], tuple[Sender, PeerMessage]]
