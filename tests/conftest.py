"""What every test may rely on."""

import pytest
from hypothesis import HealthCheck, settings

# No deadline per example: two workers share two cores, and a slow example is no failure. `timeout` bounds the test.
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio: the services use nothing else."""
    return "asyncio"
