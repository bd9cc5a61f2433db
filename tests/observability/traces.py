"""Places in traces, for tests of whatever passes them on."""

from hypothesis import strategies as st

from common.observability.tracing import TraceContext

contexts = st.builds(
    TraceContext,
    st.integers(1, 2**128 - 1).map("{:032x}".format),
    st.integers(1, 2**64 - 1).map("{:016x}".format),
    st.booleans(),
)


def trace(byte: int, *, sampled: bool = True) -> TraceContext:
    """A context whose identifiers repeat one byte."""
    return TraceContext(f"{byte:02x}" * 16, f"{byte:02x}" * 8, sampled)
