"""A box for values that must never be printed."""

from typing import Generic, NoReturn, TypeVar

Value = TypeVar("Value")


class Secret(Generic[Value]):
    """Holds a secret; ``repr``, ``str``, ``format`` show ``<redacted>``, and pickling is refused.

    ``expose()`` is the one way to the value, so that a search for it finds every place that handles a secret.
    Equality is by identity, on purpose: comparing secrets is nobody's business but a constant-time function's.
    """

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: Value) -> None:
        self._value = value

    def expose(self) -> Value:
        """Return the value. The caller must not log, format or store it in the open."""
        return self._value

    def __repr__(self) -> str:
        return "<redacted>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<redacted>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")
