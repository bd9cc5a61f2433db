"""The API keeps what its OpenAPI document says, whoever asks whatever: fuzzed against a real pod on the real wire."""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from common.kafka.embedded import EmbeddedBroker
from rest_api.app import create_app
from rest_api.settings import Settings
from tests.rest_api.world import Trust, running_pod, world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def pod_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pod with a committee behind it, on a loop in a thread of its own: the fuzzer waits for its answers."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    urls: list[str] = []
    started = threading.Event()
    ended: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        end = asyncio.Event()
        ended.append((asyncio.get_running_loop(), end))
        with EmbeddedBroker() as broker:
            async with world(broker, folder) as here, running_pod(here.settings()) as pod:
                urls.append(pod.url)
                started.set()
                await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(30), "the pod did not start"
    yield urls[0]
    loop, end = ended[0]
    loop.call_soon_threadsafe(end.set)
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


def _document() -> dict[str, Any]:
    """The document as a pod serves it; nothing is connected for it."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(index=0, secrets_dir=Trust("t.").write(Path(folder) / "trust")))
        return app.openapi()


TOO_LATE = {408, 504}
"""Whoever gives a request a millisecond may get no answer in it, be it right or wrong."""
TIME_LIMITED = {"POST /v1/sign", "POST /v1/sign/batch", "POST /v1/verify", "POST /v1/keys/{key_id}/refresh"}

schema = schemathesis.openapi.from_dict(_document())


@schema.parametrize()
@settings(max_examples=30, derandomize=True, deadline=None)
def test_every_answer_is_one_that_the_document_names(
    case: schemathesis.Case[Any], pod_url: str, session: requests.Session
) -> None:
    response = case.call(base_url=pod_url, session=session)
    excluded: list[Any] = []
    if case.operation.label in TIME_LIMITED and response.status_code in TOO_LATE:
        excluded = [not_a_server_error, negative_data_rejection, positive_data_acceptance]
    case.validate_response(response, excluded_checks=excluded)
