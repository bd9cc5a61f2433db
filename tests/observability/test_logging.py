"""A log line is one line that a machine can read, and it never shows what is secret."""

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from common.errors import BadInput
from common.observability.logging import LogFormat, bound, configure, get_logger
from common.observability.redaction import LONGEST_TEXT, scrub, scrub_text, trace
from common.secret import Secret

SHARE = bytes(range(0x41, 0x61))
SHOWN = ("ABCDEFGH", SHARE.hex(), str(int.from_bytes(SHARE, "little")))


@dataclass(frozen=True)
class Package:
    share: bytes


class Body(BaseModel):
    number: int


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, sys.excepthook, threading.excepthook)
    yield
    root.handlers[:], level, sys.excepthook, threading.excepthook = before
    root.setLevel(level)


def _configured(format_: LogFormat = LogFormat.JSON, level: str = "info") -> io.StringIO:
    out = io.StringIO()
    configure(format_, level, "signer_service", 3, out)
    return out


def _lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("format_", LogFormat)
@pytest.mark.parametrize(
    "value",
    [
        Secret(SHARE),
        SHARE,
        bytearray(SHARE),
        memoryview(SHARE),
        int.from_bytes(SHARE, "little"),
        Package(SHARE),
        {"share": SHARE.hex()},
        {"deep": [{"deeper": (SHARE, Secret(SHARE))}]},
        {SHARE: 1},
        [frozenset({SHARE})],
        ValueError(f"cannot use {SHARE!r}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_value_of_a_line_shows_a_secret(format_: LogFormat, value: object) -> None:
    out = _configured(format_)
    get_logger("test").info("a fact", value=value, private_key=SHARE.hex())
    logging.getLogger("somebody.else").warning("their fact %s", value if isinstance(value, Secret) else SHARE)
    text = out.getvalue()
    assert "a fact" in text
    assert "their fact" in text
    assert not [shown for shown in SHOWN if shown in text]


@pytest.mark.parametrize("format_", LogFormat)
def test_an_exception_is_told_with_places_and_without_local_variables(format_: LogFormat) -> None:
    out = _configured(format_)

    def parse() -> None:
        held_in_a_local = "hunter" + "2"
        int(SHARE)
        raise AssertionError(held_in_a_local)

    for log in (get_logger("test"), logging.getLogger("somebody.else")):
        try:
            parse()
        except ValueError:
            log.exception("it failed")
    text = out.getvalue()
    assert text.count("in parse") == 2
    assert "hunter2" not in text
    assert not [shown for shown in SHOWN if shown in text]


def test_a_validation_error_does_not_quote_what_the_caller_sent() -> None:
    sent = "the user's" + " message"
    with pytest.raises(ValidationError) as caught:
        Body.model_validate({"number": sent})
    assert sent in str(caught.value)
    assert sent not in trace(caught.value)
    assert sent not in str(scrub(caught.value))


@pytest.mark.parametrize("sent", ["plain words", "a ] words", "x, input_type=str] words", "'\" words", "\n words"])
def test_no_input_can_end_its_own_redaction(sent: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate({"number": sent})
    assert "words" in str(caught.value)
    assert "words" not in str(scrub(caught.value))


@given(st.binary(min_size=1, max_size=200), st.integers(0, 60))
def test_a_byte_literal_does_not_show_even_when_the_text_is_cut_inside_it(raw: bytes, longest: int) -> None:
    text = scrub_text(f"cannot use {raw!r} here", longest)
    assert text.startswith("cannot use <bytes>"[: min(longest, 11)])
    assert repr(raw) not in text
    assert longest < 14 or "b'" not in text.split("... <")[0]


def test_our_own_errors_keep_code_and_detail() -> None:
    assert scrub(BadInput("key-id", "too long")) == "BadInput: key-id: too long"


def test_every_line_says_which_process_and_which_request_speaks() -> None:
    out = _configured()
    with bound(request_id="r-1", trace_id="t-1"):
        get_logger("test").info("inside")
        logging.getLogger("uvicorn.error").warning("inside too")
    get_logger("test").info("outside")
    inside, theirs, outside = _lines(out)
    assert {"service": "signer_service", "index": 3, "request_id": "r-1", "trace_id": "t-1"}.items() <= inside.items()
    assert theirs["request_id"] == "r-1"
    assert "request_id" not in outside


def test_the_level_holds_for_all_loggers_and_an_unknown_one_is_refused() -> None:
    out = _configured(level="WARNING")
    get_logger("test").info("no")
    logging.getLogger("somebody.else").info("no")
    get_logger("test").warning("yes")
    assert [line["event"] for line in _lines(out)] == ["yes"]
    with pytest.raises(ValueError, match="log level"):
        configure(LogFormat.JSON, "loud", "signer_service", 3)


def test_a_thread_that_dies_leaves_a_line() -> None:
    out = _configured()
    thread = threading.Thread(target=lambda: 1 // 0, name="poller")
    # pytest watches this hook too; what is tested is ours.
    threading.excepthook, theirs = _own_hook(), threading.excepthook
    try:
        thread.start()
        thread.join()
    finally:
        threading.excepthook = theirs
    (line,) = _lines(out)
    assert line["thread"] == "poller"
    assert "ZeroDivisionError" in line["exception"]


def _own_hook() -> Any:
    from common.observability import logging as module

    return module._log_thread_death


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=10).filter(lambda name: name not in {"event", "self", "exc_info", "stack_info"}),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    ),
    st.text(),
)
def test_whatever_is_logged_is_one_parsable_line(values: dict[str, Any], event: str) -> None:
    out = _configured()
    get_logger("test").info(event, **values)
    assert len(out.getvalue().splitlines()) == 1
    assert _lines(out)[0]["level"] in {"info", scrub(values.get("level"))}


def test_a_line_break_or_escape_sequence_cannot_forge_a_line() -> None:
    out = _configured(LogFormat.CONSOLE)
    get_logger("test").info("name\n2026 [error] forged", name="\x1b[2Jcleared\nforged")
    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b[2J" not in out.getvalue()


def test_paths_and_identifiers_are_shown() -> None:
    assert scrub(Path("seats/1")) == "seats/1"
    assert scrub(UUID(int=7)) == "00000000-0000-0000-0000-000000000007"


def test_long_text_is_cut() -> None:
    assert len(scrub_text("x" * 100_000)) < LONGEST_TEXT + 50
