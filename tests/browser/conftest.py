"""The machine's Chromium, headless, on a real pod with the wire committee behind it, and a wire that tests can cut."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.browser.steps import visit
from tests.rest_api.conftest import cluster, log_lines, own_world, pod, shared_pod, shared_world
from tests.rest_api.world import Pod

__all__ = ["cluster", "log_lines", "own_world", "pod", "shared_pod", "shared_world"]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


WITHIN_MS = 45_000
"""How long a page may take for anything, on a machine that has other things to do; a test has two minutes."""
expect.set_options(timeout=WITHIN_MS)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    # The same engine without a browser around it, for less than half of the price of each page.
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no chromium on this machine, and with CI set that proves nothing")
        pytest.skip("needs a chromium on the PATH (Debian: apt-get install chromium-headless-shell)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        await launched.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A profile of its own, with a clipboard; any error or refused load on its pages fails the test."""
    made = await browser.new_context(
        viewport={"width": 1280, "height": 900}, locale="en-GB", permissions=["clipboard-read", "clipboard-write"]
    )
    made.set_default_timeout(WITHIN_MS)
    wrong: list[str] = []
    made.on("weberror", lambda error: wrong.append(str(error.error)))
    made.on(
        "console",
        lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
    )
    yield made
    await made.close()
    assert wrong == []


@pytest.fixture
async def page(context: BrowserContext, pod: Pod) -> Page:
    """The page of the module's pod, connected."""
    return await visit(context, pod.url)


@dataclass
class Wire:
    """A TCP relay between the browser and a pod, that can be cut and mended."""

    target: int
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Nobody gets through, and who was through is thrown out."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            for each in (writer, back):
                self._writers.discard(each)
                each.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
        writer.close()


@pytest.fixture
async def wire(pod: Pod) -> AsyncIterator[Wire]:
    made = Wire(int(pod.url.rpartition(":")[2]))
    await made.mend()
    yield made
    await made.cut()
