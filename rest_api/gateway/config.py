"""The figures that one pod's gateway goes by."""

from dataclasses import dataclass

from common.ids import PodIndex


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Out of the settings, by the composition root."""

    index: PodIndex
    pending_limit: int
    """In items: beyond it requests are refused."""
    suspect_after_s: float
    """A signer that was not heard for so long is sent nothing new."""
    beat_interval_s: float

    @property
    def full_detail(self) -> str:
        """What is said to whoever comes when the limit is reached."""
        return f"{self.pending_limit} items are under way"
