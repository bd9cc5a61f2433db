"""Errors, sorted by what the caller does next.

``BadInput``     refuse: the bytes or values are wrong; tell who sent them, and go on.
``PeerFault``    blame: another replica broke the protocol, and ``culprits`` says which; work around it.
``Unavailable``  retry: nothing is wrong with the request; something it needs is not there now.
``Bug``          stop: our own invariant does not hold. Never caught to go on.

A message never contains a secret, a key byte or a user's message: it may end in a log or an HTTP answer.
"""

from collections.abc import Iterable


class SignerFlowError(Exception):
    """Base of all of ours. ``code`` is stable and machine-readable, ``detail`` is for a person."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class BadInput(SignerFlowError):
    """Refuse: what was given is wrong and will be wrong the next time. ``field`` names the part, if one is known."""

    def __init__(self, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(code, detail)
        self.field = field


class PeerFault(SignerFlowError):
    """Blame: these seats did what no honest replica does. The caller has, or can make, the evidence."""

    def __init__(self, code: str, detail: str, culprits: Iterable[int]) -> None:
        super().__init__(code, detail)
        self.culprits = tuple(sorted(culprits))


class Unavailable(SignerFlowError):
    """Retry later: the broker, a quorum or a place in a queue is missing now."""

    def __init__(self, code: str, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, detail)
        self.retry_after_s = retry_after_s


class Bug(SignerFlowError):
    """Stop: this cannot happen in a correct program."""

    def __init__(self, detail: str) -> None:
        super().__init__("bug", detail)
