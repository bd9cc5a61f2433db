"""What a probe is told, on the front port and on the admin port alike."""

from typing import Final

from common.observability.admin import Health
from rest_api.gateway.standing import Standing

LOOP_SILENCE_S: Final = 10.0
THREAD_SILENCE_S: Final = 60.0
"""A client's thread may wait half a minute for a broker, in order; a dead one never comes back."""


def liveness(standing: Standing) -> Health:
    """Whether our own loops turn: restarting us would not help against a broker that is away."""
    stuck = {
        name: f"silent for {silence:.0f} s"
        for name, silence in standing.heartbeats().items()
        if silence > THREAD_SILENCE_S
    }
    if standing.silence_s() > LOOP_SILENCE_S:
        stuck["loop"] = f"silent for {standing.silence_s():.0f} s"
    return Health(not stuck, stuck or {"loop": "turning"})


def readiness(standing: Standing) -> Health:
    """Whether a request would be taken now."""
    wrong = standing.readiness()
    return Health(not wrong, wrong or {"gateway": "ready"})
