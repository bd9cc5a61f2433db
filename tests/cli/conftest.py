"""The command line is tested against a real pod with the committee of the HTTP tests behind it."""

from tests.rest_api.conftest import cluster, log_lines, own_world, pod, shared_pod, shared_world

__all__ = ["cluster", "log_lines", "own_world", "pod", "shared_pod", "shared_world"]
