"""The order of a run: broker, demo, witness, callers, faults and refreshes, quiet, the last look, the check."""

import asyncio
import base64
import contextlib
import functools
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from common.errors import Unavailable
from common.kafka.settings import KafkaSettings
from tests.chaos import checker, faults, history
from tests.chaos import witness as witnesses
from tests.chaos.checker import Finding
from tests.chaos.clients import HOST, Batch, Caller, Quota, Single, Socket, now_ms
from tests.chaos.evidence import Evidence
from tests.chaos.faults import ChaosError, OwnBroker, System, own_broker, wait_for
from tests.chaos.history import Book, Final, Refresh, Row
from tests.chaos.plan import BROKER, Step
from tests.chaos.witness import Witness

KEY_ID = "default"
GAP_S = 1.0
"""Between two faults everybody is well for so long."""
QUIET_S = 60.0
REFRESH_S = 60.0
REFRESH_GAP_S = 2.5
LOOK_S = 0.25
DRAIN_S = 60.0
AUDIT_S = 120.0
MEASURING = 64
"""Callers who ask again at once find out what can be done; more of them only wait longer."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is done. ``rate``: messages a second in all (None: as fast as answers come); ``most_s`` bounds it."""

    seed: int
    requests: int
    steps: tuple[Step, ...]
    refreshes: int
    rate: float | None
    callers: tuple[int, int, int]
    """Singles, batches, sockets."""
    timeout_ms: int
    most_s: float
    apis: int = 2
    signers: int = 3
    half: bool = False
    """Measure for a while how much can be done, then ask half of it."""
    bench: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left: its rows, what the topics held, and what is wrong."""

    rows: list[Row]
    evidence: Evidence
    findings: list[Finding]
    broken: str | None
    """What kept the run from going on to its end."""


class Run:
    """One run in one folder."""

    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        self.options, self.folder, self._say = options, folder, say
        self._deadline = time.monotonic() + options.most_s
        self.refreshed = 0

    async def all(self, kafka: str | None) -> str | None:
        """Do it, on ``kafka`` or on a broker of our own. Returns what kept it from its end, if anything did.

        Raises:
            ChaosError: it could not even begin.
        """
        with (self.folder / "history.jsonl").open("w", encoding="ascii") as file:
            book = Book(file)
            async with contextlib.AsyncExitStack() as stack:
                disk_mib = faults.DISK_MIB if any(step.kind == "full" for step in self.options.steps) else None
                own = None if kafka else own_broker(self.options.bench, disk_mib)
                broker = None if own is None else await stack.enter_async_context(own)
                bootstrap = kafka or (broker.bootstrap if broker else "")
                place = faults.demo(bootstrap, broker is not None, self.options.apis, self.options.signers, self.folder)
                system = await stack.enter_async_context(place)
                settings = KafkaSettings(bootstrap, "chaos-witness", topic_prefix=system.setting("TOPIC_PREFIX"))
                witness = Witness(settings, self.options.apis, self.folder / "records.jsonl")
                await stack.enter_async_context(witness)
                return await self._watched(system, broker, witness, book)

    async def _watched(self, system: System, broker: OwnBroker | None, witness: Witness, book: Book) -> str | None:
        quota = Quota(self.options.rate, self.options.seed)
        broken: str | None = None
        async with self._looking(system):
            callers = self._callers(system, quota, book)
            first = MEASURING if self.options.half else len(callers)
            work = [asyncio.create_task(caller.run()) for caller in callers[:first]]
            try:
                if self.options.half:
                    await self._measure(quota, book)
                    work += [asyncio.create_task(caller.run()) for caller in callers[first:]]
                await self._trouble(system, broker, quota, book)
            except ChaosError as error:
                broken = str(error)
            quota.open = False
            done, late = await asyncio.wait(work, timeout=DRAIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            for task in done:
                task.result()
            try:
                await wait_for(system.settled, QUIET_S, "no ceremony runs and everybody is ready at the end")
            except ChaosError as error:
                broken = broken or str(error)
            try:
                ends = await self._quiet(witness)
            except Unavailable as error:
                raise ChaosError(f"{broken or 'at the end'}: nothing can be proved: {error.detail}") from error
        for pod in range(self.options.apis):
            for key in (await system.ask(pod, "/v1/keys")).get("keys", []):
                book.write(Final(pod, base64.b64decode(key["public_key"]), key["epoch"]))
        await self._beats(system, witness)
        await witness.catch_up(ends)
        about = {
            "prefix": system.setting("TOPIC_PREFIX"),
            "seats": self.options.signers,
            "ends": [[topic, partition, end] for (topic, partition), end in ends.items()],
            "broken": broken,
            "audit": await self._audit(system, witness.bootstrap),
            "options": asdict(self.options),
        }
        (self.folder / "about.json").write_text(json.dumps(about, indent=1))
        return broken

    async def _audit(self, system: System, bootstrap: str) -> dict[str, Any]:
        """What the ceremony log is worth to somebody who has only the operator's public key."""
        command = [*(sys.executable, "-m", "signer_service", "audit", "--json", "--kafka", bootstrap)]
        command += ["--operator-pub", str(Path(system.setting("SECRETS_DIR")) / "operator.pub")]
        if prefix := system.setting("TOPIC_PREFIX"):
            command += ["--topic-prefix", prefix]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            told, complained = await asyncio.wait_for(process.communicate(), AUDIT_S)
        except TimeoutError:
            process.kill()
            return {"code": await process.wait(), "said": f"no audit within {AUDIT_S:.0f} s", "epochs": []}
        if process.returncode != 0:
            return {"code": process.returncode, "said": complained.decode().strip(), "epochs": []}
        epochs = [each["epoch"] for key in json.loads(told)["keys"] for each in key["epochs"]]
        return {"code": 0, "said": "", "epochs": epochs}

    def _callers(self, system: System, quota: Quota, book: Book) -> list[Caller]:
        made: list[Caller] = []
        for way, count in zip((Single, Batch, Socket), self.options.callers, strict=True):
            made += [
                way(number % self.options.apis, system.pods, quota, book, self.options.timeout_ms)
                for number in range(count)
            ]
        return made

    @contextlib.asynccontextmanager
    async def _looking(self, system: System) -> AsyncIterator[None]:
        """A load balancer's health checks."""

        async def look() -> None:
            while True:
                await system.look()
                await asyncio.sleep(LOOK_S)

        task = asyncio.create_task(look())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _measure(self, quota: Quota, book: Book) -> None:
        """How many signatures there are in a second when everybody asks again at once; then half of that."""
        await asyncio.sleep(4.0)
        before, began = _signed(book.rows), time.monotonic()
        await asyncio.sleep(8.0)
        capacity = (_signed(book.rows) - before) / (time.monotonic() - began)
        quota.rate = max(1.0, capacity / 2)
        self._say(f"{capacity:.0f} signatures a second at most; {quota.rate:.0f} from now on")
        await asyncio.sleep(3.0)

    async def _trouble(self, system: System, broker: OwnBroker | None, quota: Quota, book: Book) -> None:
        """Faults one after another, refreshes beside them, until both are done and enough was asked."""
        refreshing = asyncio.create_task(self._refresh(system, book))
        try:
            steps = self.options.steps
            for number, step in enumerate(steps):
                due = self.options.requests * number / len(steps)
                await self._until(functools.partial(_asked, quota, due))
                if time.monotonic() > self._deadline:
                    raise ChaosError(f"time was over before fault {number + 1} of {len(steps)}")
                if step.target == BROKER and broker is None:
                    self._say(f"left out, the broker is not ours: {step}")
                    continue
                await faults.commit(step, system, broker, book)
                fault = history.only(book.rows, history.Fault)[-1]
                self._say(f"{step}: {(fault.until_ms - fault.from_ms) / 1000:.1f} s until all were ready")
                await asyncio.sleep(GAP_S)
            await self._until(lambda: quota.asked >= self.options.requests and refreshing.done())
            if not refreshing.done():
                raise ChaosError(f"{self.refreshed} of {self.options.refreshes} refreshes in all the time")
            refreshing.result()
        finally:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if time.monotonic() > self._deadline:
                return
            await asyncio.sleep(0.05)

    async def _refresh(self, system: System, book: Book) -> None:
        """Ask for a refresh, wait until the epoch is a new one, and again."""
        async with httpx.AsyncClient(timeout=10.0) as http:
            while self.refreshed < self.options.refreshes:
                before = await _epoch(system)
                pod = next((pod for pod, ready in enumerate(system.pods.ready) if ready), 0)
                try:
                    answer = await http.post(f"http://{HOST}:{system.pods.ports[pod]}/v1/keys/{KEY_ID}/refresh")
                    code = "" if answer.status_code == 202 else str(answer.json()["type"]).rpartition(":")[2]
                    book.write(Refresh(answer.status_code, code, now_ms()))
                except (httpx.HTTPError, ValueError, KeyError):
                    book.write(Refresh(0, "", now_ms()))
                    code = "lost"

                async def newer(before: int = before) -> bool:
                    return await _epoch(system) > before

                with contextlib.suppress(ChaosError):
                    await wait_for(newer, REFRESH_GAP_S if code else REFRESH_S, "a new epoch")
                    self.refreshed += 1
                await asyncio.sleep(REFRESH_GAP_S)

    async def _quiet(self, witness: Witness) -> dict[tuple[str, int], int]:
        """Wait until every request's offset is committed, which the checker looks at; and where the topics end."""
        end = time.monotonic() + QUIET_S
        while True:
            ends = await witness.ends()
            await witness.catch_up(ends)
            requests = {partition: at for (topic, partition), at in ends.items() if topic.endswith("signer.v1")}
            if all(witness.committed.get(partition, 0) >= at for partition, at in requests.items()):
                return await witness.ends()
            if time.monotonic() > end:
                return ends
            await asyncio.sleep(0.2)

    async def _beats(self, system: System, witness: Witness) -> None:
        """Let each seat beat once more after the last look, and have that read."""
        since = witness.beats()

        async def more() -> bool:
            return witness.beats() >= since + 4 * self.options.signers

        with contextlib.suppress(ChaosError):
            await wait_for(more, QUIET_S, "everybody beats")


def _asked(quota: Quota, due: float) -> bool:
    return quota.asked >= due


async def _epoch(system: System) -> int:
    """The newest epoch that any pod names."""
    epochs = [
        int(key["epoch"])
        for pod in range(system.apis)
        for key in (await system.ask(pod, "/v1/keys")).get("keys", [])
        if key["key_id"] == KEY_ID
    ]
    return max(epochs, default=0)


def _signed(rows: Sequence[Row]) -> int:
    return sum(isinstance(row, history.Answer) and row.status == 200 for row in rows)


def judge(folder: Path, late_ms: int = checker.LATE_MS) -> Outcome:
    """Check what a run left in its folder; a question is hung ``late_ms`` after its deadline."""
    about: dict[str, Any] = json.loads((folder / "about.json").read_text())
    evidence = Evidence(prefix=about["prefix"])
    evidence.take_all(witnesses.read(folder / "records.jsonl"))
    evidence.ends = {(topic, partition): end for topic, partition, end in about["ends"]}
    rows = list(history.read(folder / "history.jsonl"))
    found = checker.check(rows, evidence, about["seats"], late_ms)
    found += checker.check_ceremonies(about["audit"]["code"], about["audit"]["said"], about["audit"]["epochs"])
    return Outcome(rows, evidence, found, about["broken"])
