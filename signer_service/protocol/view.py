"""What the ceremonies let the signing machines use: a snapshot, replaced whole whenever it changes.

The ceremony machine derives it from its fold and its secrets; coordinator and participant get it as ``ViewChanged``.
A level, not an edge: feeding the same view twice is harmless, and a restart needs no history.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.ids import EdgeKeyId, Epoch, Index, KeyId, OpenId
from common.wire.messages import NonceScope
from signer_service.frost.keys import KeyPackage, PublicKeyPackage


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """One key at one epoch, as this seat may use it. ``share`` is None when this seat holds none."""

    key_id: KeyId
    epoch: Epoch
    scope: NonceScope
    public: PublicKeyPackage
    share: KeyPackage | None

    @property
    def threshold(self) -> int:
        """t of this epoch."""
        return self.public.threshold

    @property
    def holders(self) -> frozenset[Index]:
        """Seats with a verification share in this epoch."""
        return frozenset(self.public.verification_shares)


@dataclass(frozen=True, slots=True)
class InternalSession:
    """The one session that signs an epoch's KeyRecord, before its commit, with the staged shares.

    ``message`` is what this seat built from its own fold: a participant signs these bytes and no others.
    ``coordinate`` is set on the seat whose turn it is to run the session.
    """

    open_id: OpenId
    keys: EpochKeys
    message: bytes
    coordinate: bool


@dataclass(frozen=True, slots=True)
class SigningView:
    """All that the signing machines may use now. Nothing that is absent here may be used any more.

    ``draining`` holds the epoch before ``current`` during its short drain window: sessions that began in it may end.
    ``edge_keys`` and ``identity_keys`` leave out what the roster, in file or log, has revoked. A seat that it merely
    leaves out stays among ``identity_keys`` while the current epoch counts on its share.
    """

    seat: Index
    edge_keys: Mapping[EdgeKeyId, bytes] = field(default_factory=dict)
    identity_keys: Mapping[Index, bytes] = field(default_factory=dict)
    key_ids: tuple[KeyId, ...] = ()
    current: Mapping[KeyId, EpochKeys] = field(default_factory=dict)
    draining: Mapping[KeyId, EpochKeys] = field(default_factory=dict)
    internal: Mapping[OpenId, InternalSession] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ViewChanged:
    """Event: from now on this is what may be used."""

    view: SigningView
