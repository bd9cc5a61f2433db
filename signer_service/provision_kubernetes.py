"""``provision`` where keys live in a Kubernetes namespace instead of a folder: what the chart's Job runs.

===========================  ==================================================================================
Secret ``…-operator-key``    ``operator.key``; may be taken away once no roster is to be signed
Secret ``…-edge-key``        ``edge.key``, for the API pods
Secret ``…-identities``      a key per signer pod, ``<pod>``: its seat's ``identity.key``
Secret ``…-sealing-keys``    the same with each seat's ``sealing.key``
ConfigMap ``…-roster``       ``operator.pub`` and ``roster.avro``
===========================  ==================================================================================

What is there is copied into an empty private folder, ``provision`` runs on it, and what it made is sent back: the same
rules hold as for a folder. Nothing that is there is ever replaced but the roster, by the next version.

**Any end of this process is mended by running it again.** The order is: operator, edge, identities, sealing, and the
roster last, each only after the one before is known to be stored. So a roster never stands there before the keys that
it names, nor one that was signed by a key that is kept nowhere. Whoever finds, when he stores something, that somebody
else has stored it meanwhile, forgets what he made and begins anew with what is there.
"""

import base64
import binascii
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from common import ed25519
from common.errors import BadInput, Unavailable
from common.ids import Index
from common.kubernetes import Kubernetes, Object
from common.secret import Secret
from common.trust import read_roster
from signer_service.protocol.machine import Entropy
from signer_service.provision import Plan, Provisioned, provision
from signer_service.shell import disk
from signer_service.shell.keystore import KEY_BYTES

ATTEMPTS: Final = 8
RELEASE_LABEL: Final = "signer-flow/release"
FOREIGN_LABEL: Final = "app.kubernetes.io/instance"
"""By this one Argo CD (before 3.0) knows what is a part of its application, and removes what it did not make."""
KEPT: Final = {
    "helm.sh/resource-policy": "keep",
    "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
"""Annotations that say the same to each tool: clear up around it."""
SECRET_TYPE: Final = "signer-flow/keys"  # noqa: S105 - the type of such an object, and no secret


@dataclass(frozen=True, slots=True)
class Names:
    """The objects' names, and that of a signer's pod without its number."""

    operator: str
    edge: str
    identities: str
    sealing: str
    roster: str
    pod: str
    labels: Mapping[str, str]

    @classmethod
    def of(cls, name: str, instance: str) -> "Names":
        """As the chart calls them: ``name`` is its full name, ``instance`` that of the release.

        Raises:
            BadInput: code ``name``: nothing in Kubernetes can be called so.
        """
        for each in (name, instance):
            if re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", each) is None:
                raise BadInput("name", f"{each[:80]!r} is no name in Kubernetes: lower-case letters, digits and '-'")
        labels = {
            "app.kubernetes.io/name": "signer-flow",
            "app.kubernetes.io/component": "keys",
            RELEASE_LABEL: instance,
        }
        parts = ("operator-key", "edge-key", "identities", "sealing-keys", "roster", "signer")
        operator, edge, identities, sealing, roster, pod = (f"{name}-{part}" for part in parts)
        return cls(operator, edge, identities, sealing, roster, pod, labels)

    def key_of(self, seat: Index) -> str:
        """The key of a seat in ``identities`` and ``sealing``: the name of its pod. Pods count from 0, seats from 1."""
        return f"{self.pod}-{seat - 1}"


def operator_key(api: Kubernetes, names: Names) -> bytes:
    """The operator's public key, as it lies beside the roster: whose key records are believed.

    Raises:
        BadInput: code ``operator-key``: it is not there; or as ``provision_namespace``. Unavailable: no answer.
    """
    found = _read(api, "ConfigMap", names.roster).data.get("operator.pub", b"")
    if len(found) != KEY_BYTES:
        raise BadInput("operator-key", f"ConfigMap {names.roster} has no operator.pub: there is no log to go on from")
    return found


@dataclass(slots=True)
class _Kept:
    """One object: where it lies (None: nowhere yet), and its bytes by key."""

    kind: str
    name: str
    found: Object | None
    data: dict[str, bytes]


class _Overtaken(Exception):
    """Somebody else stored something meanwhile."""


def provision_namespace(api: Kubernetes, names: Names, plan: Plan, entropy: Entropy, scratch: Path) -> Provisioned:
    """Make what is missing in the namespace, so that it is as ``plan`` says.

    Args:
        api: The namespace, with the right to get and update these objects, and to create Secrets and ConfigMaps.
        names: What they are called.
        plan: As for a folder. A seat to be replaced that has an identity key is not replaced: take the key out first.
        entropy: For new keys.
        scratch: A folder in memory. What is written there for a moment is erased and removed at the end.

    Raises:
        BadInput: as ``provision``, or the API does not allow it, or what is there does not fit together.
        Unavailable: the API does not answer, or others kept changing the same objects.
    """
    for _ in range(ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix="provision-", dir=scratch))
        try:
            return _Run(api, names, folder).run(plan, entropy)
        except _Overtaken:
            continue
        finally:
            _burn(folder)
    raise Unavailable("kubernetes", "others kept changing the same Secrets: let one run at a time, and run it again")


class _Run:
    def __init__(self, api: Kubernetes, names: Names, folder: Path) -> None:
        self._api = api
        self._names = names
        self._folder = folder

    def run(self, plan: Plan, entropy: Entropy) -> Provisioned:
        names = self._names
        operator, edge, identities, sealing = (
            _read(self._api, "Secret", name) for name in (names.operator, names.edge, names.identities, names.sealing)
        )
        roster = _read(self._api, "ConfigMap", names.roster)
        self._check_whole(roster, operator, (edge, identities, sealing))
        self._check_pods(roster, plan.signers)
        self._check_sealing_keys(roster, identities, sealing, plan)
        seats = self._seats(plan.signers, identities, sealing)
        self._lay_out(operator, edge, identities, sealing, roster, seats)
        stolen = frozenset(seat for seat in plan.replace_seats if names.key_of(seat) not in identities.data)
        done = provision(self._folder, replace(plan, replace_seats=stolen), entropy)
        # Before anything names them, the keys; and before anything is signed with it, the operator's. See above.
        self._store(operator, {"operator.key": self._folder / "operator.key"})
        self._store(edge, {"edge.key": self._folder / "edge.key"})
        for kept, file in ((identities, "identity.key"), (sealing, "sealing.key")):
            self._store(kept, {names.key_of(seat): self._seat(seat) / file for seat in seats})
        self._store(roster, {name: self._folder / name for name in ("operator.pub", "roster.avro")}, replaces=True)
        left = tuple(
            f"seat {seat}: {names.identities} has an identity key, so it was not made anew: take it out first"
            for seat in sorted(plan.replace_seats - stolen)
        )
        return Provisioned(done.roster, (*done.lines, *left))

    def _check_whole(self, roster: _Kept, operator: _Kept, others: tuple[_Kept, ...]) -> None:
        """The operator's key is stored first, so that others without it mean that it was taken away."""
        if "operator.key" in operator.data or "operator.pub" in roster.data:
            return
        there = [kept.name for kept in others if kept.data]
        if there:
            raise BadInput(
                "operator-key",
                f"Secret {operator.name} and ConfigMap {roster.name} are gone, but {', '.join(there)} are there: bring "
                "back one of both (a new operator key would make another system, where these shares are worth nothing)",
            )

    def _check_pods(self, roster: _Kept, signers: int) -> None:
        """Pods beyond the new number are stopped when this is done: they can hand on nothing any more."""
        raw, operator_key = roster.data.get("roster.avro"), roster.data.get("operator.pub")
        if raw is None or operator_key is None:
            return
        old = read_roster(raw, operator_key)
        for key in old.keys:
            if signers < key.threshold:
                raise BadInput(
                    "step",
                    f"{signers} signers cannot hand on key {key.key_id}, it takes {key.threshold} of the "
                    f"{len(old.seats)} that there are: go down to {key.threshold} first, and on when that is done",
                )

    def _check_sealing_keys(self, roster: _Kept, identities: _Kept, sealing: _Kept, plan: Plan) -> None:
        """Refuse before any pod is started anew: those that run still have the key that is gone from here."""
        raw, operator_key = roster.data.get("roster.avro"), roster.data.get("operator.pub")
        if raw is None or operator_key is None:
            return
        missing = []
        for seat in read_roster(raw, operator_key).seats:
            key = self._names.key_of(seat.index)
            identity = identities.data.get(key)
            # With another identity than the roster has it is about to be replaced, and has sealed nothing yet.
            if identity is None:
                replaced = seat.index in plan.replace_seats
            else:
                replaced = len(identity) == KEY_BYTES and ed25519.public_key(Secret(identity)) != seat.identity_key
            if seat.index <= plan.signers and key not in sealing.data and not replaced:
                missing.append(key)
        if missing:
            raise BadInput(
                "sealing-key",
                f"Secret {sealing.name} has no {', '.join(missing)}, and what is on the volume is sealed under it: "
                "restart nothing, bring it back from the pod that runs or a backup (runbooks.md: A deleted Secret)",
            )

    def _seats(self, signers: int, *kept: _Kept) -> tuple[Index, ...]:
        """Seats of the plan, and of before, as far as anything of theirs is kept or was made."""
        known = {key for each in kept for key in each.data}
        most = max([signers, *(self._number(key) for key in known)])
        return tuple(map(Index, range(1, most + 1)))

    def _number(self, key: str) -> int:
        pod, _, ordinal = key.rpartition("-")
        if pod != self._names.pod or not ordinal.isascii() or not ordinal.isdigit():
            raise BadInput(
                "kubernetes",
                f"the keys in {self._names.identities} and {self._names.sealing} are names of pods such as "
                f"{self._names.pod}-0, not {key[:80]!r}",
            )
        return min(int(ordinal) + 1, 65_535)

    def _seat(self, seat: Index) -> Path:
        return self._folder / "seats" / str(seat)

    def _lay_out(
        self, operator: _Kept, edge: _Kept, identities: _Kept, sealing: _Kept, roster: _Kept, seats: tuple[Index, ...]
    ) -> None:
        for kept, name in ((operator, "operator.key"), (edge, "edge.key")):
            self._put(self._folder / name, kept.data.get(name))
        for name in ("operator.pub", "roster.avro"):
            self._put(self._folder / name, roster.data.get(name))
        for seat in seats:
            for kept, name in ((identities, "identity.key"), (sealing, "sealing.key")):
                self._put(self._seat(seat) / name, kept.data.get(self._names.key_of(seat)))

    def _put(self, path: Path, data: bytes | None) -> None:
        if data is None:
            return
        # Below our own folder only: what it lies in is the pod's, and anybody there may write in it.
        for folder in reversed([path.parent, *path.parent.parents]):
            if self._folder in folder.parents:
                disk.make_private_dir(folder)
        disk.create_durably(path, data)

    def _store(self, kept: _Kept, files: Mapping[str, Path], *, replaces: bool = False) -> None:
        """Send what is in ``files`` and not yet there. Nothing that is there changes, unless ``replaces``."""
        made = {key: path.read_bytes() for key, path in files.items() if path.exists()}
        wanted = {key: data for key, data in made.items() if kept.data.get(key) != data}
        if any(key in kept.data for key in wanted) and not replaces:
            raise BadInput(
                "kubernetes", f"{kept.kind} {kept.name} would be overwritten: this is a bug, nothing was done"
            )
        if not wanted:
            return
        where = "data" if kept.kind == "Secret" else "binaryData"
        encoded = {key: base64.b64encode(data).decode() for key, data in (kept.data | wanted).items()}
        if kept.found is None:
            body: Object = {
                "apiVersion": "v1",
                "kind": kept.kind,
                "metadata": {"name": kept.name, "labels": dict(self._names.labels), "annotations": dict(KEPT)},
                where: encoded,
            }
            if kept.kind == "Secret":
                body["type"] = SECRET_TYPE
            stored = self._api.create(kept.kind, body)
        else:
            metadata = self._marked(kept.found["metadata"])
            stored = self._api.replace(kept.kind, {**kept.found, "metadata": metadata, where: encoded})
        if not stored:
            raise _Overtaken

    def _marked(self, metadata: Object) -> Object:
        """What it says of itself, with what we say of such objects: it may have been restored by hand."""
        labels = {name: each for name, each in (metadata.get("labels") or {}).items() if name != FOREIGN_LABEL}
        annotations = metadata.get("annotations") or {}
        return {**metadata, "labels": {**labels, **self._names.labels}, "annotations": {**annotations, **KEPT}}


def _read(api: Kubernetes, kind: str, name: str) -> _Kept:
    found = api.get(kind, name)
    raw = (found or {}).get("data" if kind == "Secret" else "binaryData") or {}
    try:
        return _Kept(kind, name, found, {key: base64.b64decode(text, validate=True) for key, text in raw.items()})
    except (binascii.Error, ValueError, TypeError):
        raise BadInput("kubernetes", f"{kind} {name} holds what is no base64") from None


def _burn(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            disk.erase(path)
    shutil.rmtree(folder, ignore_errors=True)
