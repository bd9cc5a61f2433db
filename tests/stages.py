"""The tests in stages, and what ``--stages`` makes of them.

A file belongs to one stage, because its tests share what they start:

    fast          needs no broker and little time
    contract      what two sides have agreed on: the port to Kafka on every broker, records and their schemas, HTTP
    integration   whole systems: on Apache Kafka, in containers, or for a long time
    browser       the page, in a real one
    package       what ships: images, lists of what is in them, the chart

Stages begin in this order; workers that find nothing more to do in one go on with the next. With ``--stages`` nothing
of a later stage is run once a test has failed (what is left out is counted as skipped, with the reason), and how long
each took is told before the summary.
"""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

STAGES: Final = ("fast", "contract", "integration", "browser", "package")

_CONTRACT_FOLDERS: Final = ("kafka", "wire")
_CONTRACT_FILES: Final = ("integration/test_port_contract.py", "rest_api/test_schemathesis.py")
_PACKAGE_FILES: Final = ("integration/test_images.py",)
_LONG_OR_NEEDY: Final = {"docker", "kafka", "slow"}
_HERE: Final = Path(__file__).parent
_PROPERTY: Final = "stage"


def stage_of(path: str, marks: Iterable[str]) -> str:
    """Stage of a file below ``tests/``; ``marks`` are those of any test in it."""
    folder = path.partition("/")[0]
    if folder == "browser":
        return "browser"
    if folder == "deploy" or path in _PACKAGE_FILES:
        return "package"
    if folder in _CONTRACT_FOLDERS or path in _CONTRACT_FILES:
        return "contract"
    return "integration" if _LONG_OR_NEEDY.intersection(marks) else "fast"


def assign(items: Iterable[pytest.Item]) -> dict[Path, int]:
    """Tell each test its stage. Returns the number of each file's stage, from 0."""
    items = list(items)
    marks: dict[Path, set[str]] = {}
    for item in items:
        marks.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    found = {path: stage_of(path.relative_to(_HERE).as_posix(), marks[path]) for path in marks}
    for item in items:
        item.user_properties.append((_PROPERTY, found[item.path]))
    return {path: STAGES.index(stage) for path, stage in found.items()}


def _stage(properties: Iterable[tuple[str, object]]) -> str | None:
    return next((str(value) for name, value in properties if name == _PROPERTY), None)


@dataclass(slots=True)
class _Told:
    """What is known of a stage: outcomes of its tests, and when its first began and its last ended (Unix time)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    begun: float = float("inf")
    ended: float = 0.0

    def line(self) -> str:
        counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        if self.ended == 0.0:
            return counted or "not run"
        return f"{counted} in {self.ended - self.begun:.0f} s"


class Stages:
    """The plugin. ``folder`` is one for all workers of a run: a stage that has failed leaves its name there."""

    def __init__(self, folder: Path, began: float) -> None:
        self._folder = folder
        self._began = began
        self._told = {stage: _Told() for stage in STAGES}
        self._left_out: set[str] = set()

    def _failed(self) -> str | None:
        return min((path.name for path in self._folder.iterdir()), key=STAGES.index, default=None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Xdist: tell a worker where the folder is."""
        node.workerinput["stages"] = str(self._folder)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave out what comes after a stage that has failed."""
        stage, failed = _stage(item.user_properties), self._failed()
        if stage is not None and failed is not None and STAGES.index(failed) < STAGES.index(stage):
            pytest.skip(f"left out: stage {failed} has failed")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count, and remember a failure for all workers."""
        stage = _stage(report.user_properties)
        if stage is None:
            return
        told = self._told[stage]
        if report.failed:
            (self._folder / stage).touch()
        if report.when == "call" or report.outcome != "passed":
            told.outcomes[report.outcome] += 1
        if report.skipped:
            self._left_out.add(report.nodeid)
        if report.nodeid not in self._left_out:
            told.begun, told.ended = min(told.begun, report.start), max(told.ended, report.stop)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell what became of each stage."""
        terminalreporter.section("stages")
        first = min((told.begun for told in self._told.values() if told.ended), default=time.time())
        terminalreporter.write_line(f"{'collect':12} {max(0.0, first - self._began):.0f} s")
        for stage, told in self._told.items():
            terminalreporter.write_line(f"{stage:12} {told.line()}")

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Nothing is left behind; the folder is the first process's."""
        if not hasattr(config, "workerinput"):
            shutil.rmtree(self._folder, ignore_errors=True)


def configure(config: pytest.Config) -> None:
    """Put the plugin in where it is asked for."""
    if not config.getoption("stages"):
        return
    given = getattr(config, "workerinput", {}).get("stages")
    folder = Path(given or tempfile.mkdtemp(prefix="signer-flow-stages-"))
    config.pluginmanager.register(Stages(folder, time.time()), "signer-flow-stages")
