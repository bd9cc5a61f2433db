"""What a container's health check runs: ``python -m common.health [URL]``, exit code 0 for well and 1 for not.

The image has no shell and no curl. The address is the argument, else ``SIGNER_HEALTH_URL``, else the first signer's
admin port. Only loopback is asked: a health check that can be pointed elsewhere is a way to reach elsewhere.
"""

import http.client
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:9001/healthz"
VARIABLE = "SIGNER_HEALTH_URL"
TIMEOUT_S = 2.0


def check(url: str) -> str | None:
    """Ask ``url``, plain http on loopback, with ``TIMEOUT_S`` for each step.

    Returns:
        None if it answers 200, else one line that says why not.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"not a URL: {url}"
    if parts.scheme != "http" or host is None or not _is_loopback(host):
        return f"a health check asks http on loopback only, not {url}"
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {url}: {type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{url} answered {status}"


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the check; ``arguments`` is at most one URL. Return the exit code, 0 or 1."""
    if len(arguments) > 1:
        problem: str | None = "usage: python -m common.health [URL]"
    else:
        problem = check(arguments[0] if arguments else environment.get(VARIABLE) or DEFAULT_URL)
    if problem is not None:
        sys.stderr.write(problem + "\n")
        return 1
    return 0


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
