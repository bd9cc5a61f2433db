"""What a participant holds of a group key, and what everybody knows of it. RFC 9591, section 2 and appendix C."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.ids import Index
from common.secret import Secret
from signer_service.frost.group import Element, Scalar


@dataclass(frozen=True, slots=True)
class KeyPackage:
    """One participant's key material, of one epoch. Only ``share`` is secret, and it prints ``<redacted>``.

    ``verification_share`` is share * B. Whoever builds a package from a file has checked that, and that the public
    values are those of the key record: nothing here checks them again for every signature.
    """

    index: Index
    share: Secret[Scalar]
    verification_share: Element
    group_key: Element
    threshold: int


@dataclass(frozen=True, slots=True)
class PublicKeyPackage:
    """What anybody may know of a group key in one epoch: enough to judge signature shares and to aggregate them."""

    group_key: Element
    threshold: int
    verification_shares: Mapping[Index, Element]
