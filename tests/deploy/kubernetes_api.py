"""A small Kubernetes API: one namespace of Secrets, ConfigMaps and pods, with the real one's status codes.

It keeps objects under a resourceVersion that each write raises, refuses what the Role does not allow, and fails where a
test says so: before a write, or after it, when the answer is lost.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from common.kubernetes import Kubernetes

TOKEN = "the-token-of-the-account"
KINDS = {"secrets": "Secret", "configmaps": "ConfigMap", "pods": "Pod"}


@dataclass
class Cluster:
    """What is stored, what was asked, and what goes wrong."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)
    """Such as ``create Secret``."""
    before_write: Callable[[str, str, str], int | None] = lambda verb, kind, name: None
    """May return a status to answer instead, 0 to cut the connection, or change things meanwhile."""
    after_write: Callable[[str, str, str], bool] = lambda verb, kind, name: True
    """False: the answer is lost."""
    budget: int = 1_000
    """How many evictions are allowed."""
    url: str = ""
    token_file: Path = Path()
    _version: int = 0

    def store(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        body = json.loads(json.dumps(body))
        body["metadata"] |= {"resourceVersion": str(self._version), "namespace": "ns"}
        self.objects[kind, body["metadata"]["name"]] = body
        return body

    def data(self, kind: str, name: str) -> dict[str, str]:
        body = self.objects[kind, name]
        found: dict[str, str] = body["data" if kind == "Secret" else "binaryData"]
        return found

    def client(self, retry_for_s: float = 20.0) -> Kubernetes:
        return Kubernetes(self.url, "ns", self.token_file, retry_for_s=retry_for_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _status(self, status: int, reason: str) -> None:
        # The real one's message may quote the object: whoever prints it shows a secret.
        self._answer(status, {"kind": "Status", "reason": reason, "message": "quoted-object-with-a-secret"})

    def _serve(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        parts = self.path.strip("/").split("/")
        assert parts[:4] == ["api", "v1", "namespaces", "ns"], self.path
        kind, name = KINDS[parts[4]], parts[5] if len(parts) > 5 else body["metadata"]["name"]
        verb = {"GET": "get", "POST": "create", "PUT": "update"}[self.command]
        verb = "evict" if parts[6:] == ["eviction"] else verb
        self.cluster.asked.append(f"{verb} {kind} {name}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._status(401, "Unauthorized")
        elif f"{verb} {kind}" in self.cluster.forbidden:
            self._status(403, "Forbidden")
        elif verb == "get":
            found = self.cluster.objects.get((kind, name))
            self._answer(200, found) if found else self._status(404, "NotFound")
        else:
            self._write(verb, kind, name, body)

    def _write(self, verb: str, kind: str, name: str, body: dict[str, Any]) -> None:
        trouble = self.cluster.before_write(verb, kind, name)
        if trouble == 0:
            self.close_connection = True
            return
        found = self.cluster.objects.get((kind, name))
        if trouble is not None:
            self._status(trouble, "Trouble")
            return
        if verb == "evict":
            self._evict(name)
            return
        if verb == "create" and found:
            self._status(409, "AlreadyExists")
            return
        if verb == "update" and not found:
            self._status(404, "NotFound")
            return
        if verb == "update" and found and found["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            self._status(409, "Conflict")
            return
        stored = self.cluster.store(kind, body)
        if self.cluster.after_write(verb, kind, name):
            self._answer(201 if verb == "create" else 200, stored)
        else:
            self.close_connection = True

    def _evict(self, name: str) -> None:
        if self.cluster.budget < 1:
            self._status(429, "TooManyRequests")
            return
        self.cluster.budget -= 1
        # The set's controller makes another one of that name at once; it is ready when it is looked at again.
        pod = self.cluster.objects["Pod", name]
        again = {**pod, "metadata": {**pod["metadata"], "uid": pod["metadata"]["uid"] + "'"}}
        self.cluster.store("Pod", again)
        self._answer(201, {"kind": "Status", "status": "Success"})

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the library's names


@contextmanager
def running_api(folder: Path) -> Iterator[Cluster]:
    """An API on loopback for the time of the block."""
    cluster = Cluster(token_file=folder / "token")
    cluster.token_file.write_text(TOKEN + "\n")
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
