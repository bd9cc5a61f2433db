"""The few things that our Jobs ask of a Kubernetes API, as the pod's own service account: read, create, replace, evict.

Only plain objects in one namespace, and only over the address and with the files that Kubernetes gives to each pod
(https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/). Objects are JSON as the API has them. What they
hold may be secret: no error shows any of it, and nothing is logged here.
"""

import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from common.errors import BadInput, Bug, Unavailable

ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S: Final = 10.0
RETRY_FOR_S: Final = 60.0
WAIT_S: Final = (0.2, 0.5, 1.0, 2.0)
_PATHS: Final = {
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Pod": "/api/v1/namespaces/{}/pods",
}
_BUSY: Final = frozenset({429, 500, 502, 503, 504})

Object = dict[str, Any]


class Kubernetes:
    """One namespace of one API server. ``retry_for_s`` bounds how long a call waits for a server that is away."""

    def __init__(
        self,
        url: str,
        namespace: str,
        token_file: Path,
        *,
        tls: ssl.SSLContext | None = None,
        retry_for_s: float = RETRY_FOR_S,
    ) -> None:
        self.namespace = namespace
        self._token_file = token_file
        self._retry_for_s = retry_for_s
        # Without a context nobody's certificate is believed. No proxy of the environment: what we send are keys.
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if tls is None else tls
        self._http = httpx.Client(base_url=url, verify=verify, timeout=TIMEOUT_S, trust_env=False)

    @classmethod
    def of_this_pod(cls, environment: Mapping[str, str], account: Path = ACCOUNT_DIR) -> "Kubernetes":
        """The API server that this pod was told of.

        Raises:
            BadInput: code ``kubernetes``: this is no pod, or it was given no service account.
        """
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
        if not host or not port:
            raise BadInput("kubernetes", "KUBERNETES_SERVICE_HOST and _PORT are not set: this runs in a pod only")
        try:
            namespace = (account / "namespace").read_text("ascii").strip()
            tls = ssl.create_default_context(cafile=account / "ca.crt")
        except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
            raise BadInput(
                "kubernetes", f"{account}: no service account is mounted here: {type(error).__name__}"
            ) from None
        address = f"[{host}]" if ":" in host else host
        return cls(f"https://{address}:{port}", namespace, account / "token", tls=tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None where there is none of that name.

        Raises:
            BadInput: code ``kubernetes``: not allowed. Unavailable: code ``kubernetes``: no answer in time.
        """
        answer = self._send("GET", f"{self._path(kind)}/{name}", f"get {kind} {name}", ok=(200, 404))
        return None if answer.status_code == 404 else _json(answer)

    def create(self, kind: str, body: Object) -> bool:
        """Make an object. False where one of that name is there, which may be ours, if an answer was lost.

        Raises:
            BadInput, Unavailable: as ``get``.
        """
        name = body["metadata"]["name"]
        return self._send("POST", self._path(kind), f"create {kind} {name}", body, ok=(201, 409)).status_code == 201

    def replace(self, kind: str, body: Object) -> bool:
        """Put ``body``, read by ``get`` and changed, in its place. False where somebody else changed it meanwhile.

        Raises:
            BadInput, Unavailable: as ``get``.
        """
        name = body["metadata"]["name"]
        if not body["metadata"].get("resourceVersion"):
            raise Bug("without its resourceVersion an object would overwrite what somebody else put there")
        path = f"{self._path(kind)}/{name}"
        # 404: it was deleted meanwhile.
        return self._send("PUT", path, f"update {kind} {name}", body, ok=(200, 404, 409)).status_code == 200

    def evict(self, pod: str) -> bool:
        """Evict a pod, as a node that is drained does. False where a disruption budget forbids it now.

        Raises:
            BadInput, Unavailable: as ``get``.
        """
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        path = f"{self._path('Pod')}/{pod}/eviction"
        answer = self._send("POST", path, f"evict Pod {pod}", body, ok=(200, 201, 404, 429))
        return answer.status_code != 429

    def _path(self, kind: str) -> str:
        return _PATHS[kind].format(self.namespace)

    def _send(
        self, method: str, path: str, what: str, body: Object | None = None, *, ok: tuple[int, ...]
    ) -> httpx.Response:
        """Ask until there is an answer. A call that is sent twice changes nothing more: see each caller."""
        ends_at = time.monotonic() + self._retry_for_s
        for attempt in range(1_000):
            try:
                answer = self._http.request(
                    method, path, json=body, headers={"Authorization": f"Bearer {self._token()}"}
                )
            except httpx.HTTPError as error:
                trouble = type(error).__name__
            else:
                if answer.status_code in ok:
                    return answer
                trouble = f"status {answer.status_code}"
                if answer.status_code not in _BUSY:
                    raise BadInput("kubernetes", f"the Kubernetes API refused to {what}: {_why(answer)}")
            wait_s = WAIT_S[min(attempt, len(WAIT_S) - 1)]
            if time.monotonic() + wait_s > ends_at:
                break
            time.sleep(wait_s)
        raise Unavailable("kubernetes", f"the Kubernetes API did not answer ({what}: {trouble}): try again")

    def _token(self) -> str:
        # Read each time: the kubelet replaces it.
        try:
            return self._token_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput("kubernetes", f"{self._token_file} cannot be read: {type(error).__name__}") from None


def _json(answer: httpx.Response) -> Object:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unavailable("kubernetes", "what answered is no Kubernetes API")
    return body


_WORDS: Final = {
    401: "the service account's token does not count",
    403: "the Role does not allow it",
    404: "there is no such thing, or no such namespace",
    413: "too large",
}


def _why(answer: httpx.Response) -> str:
    # Not the server's message: to a wrong object it may quote what is in it.
    reason = ""
    if answer.headers.get("content-type", "").startswith("application/json"):
        body = _json(answer)
        reason = body["reason"] if isinstance(body.get("reason"), str) and body["reason"].isalpha() else ""
    words = _WORDS.get(answer.status_code, "")
    return f"{answer.status_code} {reason}{': ' if words else ''}{words}"
