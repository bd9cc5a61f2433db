"""What a probe is told, on the front port and on the admin port alike."""

from typing import Final

from common.observability.admin import Health
from rest_api.gateway.core import Gateway

LOOP_SILENCE_S: Final = 10.0
THREAD_SILENCE_S: Final = 60.0
"""A client's thread may wait half a minute for a broker, in order; a dead one never comes back."""


def liveness(gateway: Gateway) -> Health:
    """Whether our own loops turn: restarting us would not help against a broker that is away."""
    stuck = {
        name: f"silent for {silence:.0f} s"
        for name, silence in gateway.heartbeats().items()
        if silence > THREAD_SILENCE_S
    }
    if gateway.silence_s() > LOOP_SILENCE_S:
        stuck["loop"] = f"silent for {gateway.silence_s():.0f} s"
    return Health(not stuck, stuck or {"loop": "turning"})


def readiness(gateway: Gateway) -> Health:
    """Whether a request would be taken now."""
    wrong = gateway.readiness()
    return Health(not wrong, wrong or {"gateway": "ready"})
