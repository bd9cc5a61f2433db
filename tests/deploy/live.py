"""What the chart renders and refuses where helm asks a cluster (`lookup`): a small API server for it.

It answers discovery and the reading of objects in one namespace, as `helm template --dry-run=server` asks them, and
refuses everything else. The objects are those that the chart made before: what is installed.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.deploy.chart import NAMESPACE, RELEASE, Object, asked, objects, yaml
from tests.deploy.tools import CHART, PATIENCE_S, ROOT, tool

NAMESPACE_OF_ALL: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}}
"""Kubernetes puts it into every namespace."""
_RESOURCES = {"v1": {"configmaps": "ConfigMap", "secrets": "Secret"}, "apps/v1": {"statefulsets": "StatefulSet"}}


def installed(*sets: str) -> list[Object]:
    """A cluster in which the chart was installed with these values."""
    return [NAMESPACE_OF_ALL, *(each for each in objects(sets) if each["kind"] == "StatefulSet")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    things: Sequence[Object]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass

    def do_GET(self) -> None:
        body = self._found(self.path.partition("?")[0].strip("/").split("/"))
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        raw = json.dumps(status if body is None else body).encode()
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _found(self, parts: list[str]) -> Object | None:
        if parts == ["version"]:
            return {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
        if parts == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        if parts == ["apis"]:
            version = {"groupVersion": "apps/v1", "version": "v1"}
            group = {"name": "apps", "versions": [version], "preferredVersion": version}
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}
        group_version = "/".join(parts[1:3]) if parts[0] == "apis" else "/".join(parts[1:2])
        rest = parts[3:] if parts[0] == "apis" else parts[2:]
        if group_version not in _RESOURCES:
            return None
        kinds = _RESOURCES[group_version]
        if not rest:
            resources = [
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
                for name, kind in kinds.items()
            ]
            return {"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}
        assert rest[:2] == ["namespaces", NAMESPACE], self.path
        same = [each for each in self.things if each["kind"] == kinds[rest[2]]]
        if len(rest) == 3:
            return {"kind": f"{kinds[rest[2]]}List", "apiVersion": group_version, "metadata": {}, "items": same}
        return next((each for each in same if each["metadata"]["name"] == rest[3]), None)


@contextmanager
def cluster(things: Sequence[Object], folder: Path) -> Iterator[Path]:
    """The API server for the time of the block; what it gives is the kubeconfig that leads there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"things": things}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {}}],
    }
    try:
        (folder / "kubeconfig").write_text(json.dumps(config))
        yield folder / "kubeconfig"
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()


def upgrade(things: Sequence[Object], folder: Path, *sets: str, helm: str = "helm3") -> tuple[list[Object], str]:
    """What an upgrade with these values would bring to a cluster that has ``things``, or what is said instead.

    Helm 4 wants the whole cluster's schemas once it has rendered: it tells of what is refused before, and no more.
    """
    command = [tool(helm), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--is-upgrade"]
    with cluster(things, folder) as config:
        own = {f"HELM_{each}_HOME": str(folder) for each in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            [*command, "--dry-run=server", *asked(sets)],
            cwd=ROOT,
            env={**os.environ, "KUBECONFIG": str(config), "HOME": str(folder), **own},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    if done.returncode != 0:
        return [], done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each], ""
