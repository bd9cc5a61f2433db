"""``python -m rest_api``: one API pod, configured by the environment, until SIGTERM or SIGINT.

Exit codes: 0 ended in order; 1 could not go on (say, the broker fenced it), to be started again; 2 its settings or
files are wrong, or a port is taken: starting it again cannot help. Told to end before the first line here ran, Python
itself ends by the signal (143 in a shell): nothing had begun.
"""

from common.collector import hold
from common.stopping import leave_at_once


def main() -> int:
    """Serve, and return the exit code."""
    leave_at_once()
    hold()
    # Imported here: it takes most of the start, and whoever is told to end meanwhile ends in order.
    from rest_api import server  # noqa: PLC0415

    return server.main()


if __name__ == "__main__":
    raise SystemExit(main())
