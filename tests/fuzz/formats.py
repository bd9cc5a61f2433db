"""Decoders of what is no record: files, settings, JSON, forms, CSV, headers."""

import asyncio
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import typer
from starlette.requests import Request

from common.errors import BadInput
from common.ids import Index, parse_key_id, parse_uuid
from common.kafka.security import read_security_file
from common.observability import tracing
from common.secret import Secret
from common.wire import topics
from rest_api import client_wire, models, settings, token_file
from rest_api.body import parse, parse_item
from rest_api.callers import Callers, UnknownCaller
from rest_api.capacity import Bodies
from rest_api.client_wire import BatchItem, ClientError
from rest_api.commands import options, results
from rest_api.commands.csv_input import CsvInput, InputError
from rest_api.dependencies import same_site
from rest_api.problems import Problem
from rest_api.routes.page import _read_text
from rest_api.routes.sign_ws import _decode, _id_of
from signer_service import provision
from signer_service import settings as signer_settings
from signer_service.audit.facts import DoesNotHold, Logged
from signer_service.audit.log_file import LogReader, LogWriter
from signer_service.protocol.ceremony_disk import Durable, durable, restore
from signer_service.protocol.ceremony_state import KeySecrets
from signer_service.protocol.snapshot import unpack
from signer_service.shell.journal import StateDir, _pack
from signer_service.shell.keystore import Sealer
from tests import playbook
from tests.fuzz import machines
from tests.fuzz.running import Decoder

SERVICES: Final = SimpleNamespace(bodies=Bodies())
NOWHERE: Final = Path("/a/file")
JSON_WORDS: Final = [
    *(
        b'"text"',
        b'"data"',
        b'"key_id"',
        b'"items"',
        b'"signature"',
        b'"public_key"',
        b'"reference"',
        b'"id"',
        b'"token"',
    ),
    *(b"null", b"true", b"1e999", b"-1", b"NaN", b"[[", b"{}", b"\\ud800", b"\\u0000", b'"default"', b'"aGVsbG8="'),
]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# --- HTTP bodies and headers ------------------------------------------------------------------------------------------


def _sign(data: bytes) -> None:
    asked = parse(models.SignRequest, data)
    models.message_of(asked.text, asked.data)


def _batch(data: bytes) -> None:
    for item in parse(models.BatchRequest, data).items:
        asked = parse_item(models.BatchItem, item)
        models.message_of(asked.text, asked.data)


def _verify(data: bytes) -> None:
    asked = parse(models.VerifyRequest, data)
    models.message_of(asked.text, asked.data, for_signing=False)
    models.unbase64(asked.signature, "signature")
    models.unbase64(asked.public_key or "", "public_key")


def _socket(data: bytes) -> None:
    value = _decode(data.decode())
    _id_of(value)
    asked = parse_item(models.SocketToken if "token" in value else models.SocketRequest, value)
    if isinstance(asked, models.SocketRequest):
        models.message_of(asked.text, asked.data)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _form(data: bytes) -> None:
    """The first line is the Content-Type, the rest the body."""
    kind, _, body = data.partition(b"\n")
    said = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return said.pop()

    headers = [(b"content-type", kind)]
    request = Request(
        {"type": "http", "method": "POST", "path": "/sign", "headers": headers, "signer_flow.services": SERVICES},
        receive,
    )
    text = _loop().run_until_complete(_read_text(request, 5.0))
    text.encode()  # it is shown again, on a page


def _headers(data: bytes) -> None:
    """Trace headers of records and of requests, addresses of proxies, tokens, origins: one line each."""
    lines = [*data.split(b"\n"), b"", b"", b""]
    found = [(tracing.HEADER, lines[0]), (tracing.LIST_HEADER, lines[1])]
    tracing.read_item_headers(found, 3)
    tracing.read_set_headers(found)
    texts = [line.decode("latin-1") for line in lines]
    tracing.parse_traceparent(texts[0])
    _callers().address_of("127.0.0.1", texts[1:3])
    client_wire.read_failure(503, None, texts[0])
    given = [(b"origin", lines[0]), (b"host", lines[1])]
    try:
        same_site(Request({"type": "http", "headers": given}))
        _callers().identify(texts[2], "127.0.0.1")
    except (Problem, UnknownCaller):
        return


@cache
def _callers() -> Callers:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens"
        path.touch(0o600)
        return Callers(path, None, (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")))


# --- what our own client reads ----------------------------------------------------------------------------------------


def _answer(data: bytes) -> None:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return
    for read in (
        lambda: client_wire.read_signature(answer, b"hello", None),
        lambda: client_wire.read_batch(answer, [BatchItem(b"hello", "a")], None),
        lambda: client_wire.read_key(answer),
        lambda: client_wire.read_cluster(answer),
    ):
        with contextlib.suppress(ClientError):
            read()
    str(client_wire.read_failure(422, answer, "5"))


def _csv(data: bytes) -> None:
    for row in CsvInput(io.BytesIO(data), "rows.csv"):
        assert (row.message is None) == (row.error is not None)


def _resume(data: bytes) -> None:
    """A result file that is there already, for an input of two rows."""
    rows = CsvInput(io.BytesIO(b"reference,text\na,hello\nb,you\n"), "rows.csv")
    descriptor = os.memfd_create("results")
    try:
        os.write(descriptor, data)
        results.resume(descriptor, "out.csv", rows.columns, iter(rows))
    finally:
        os.close(descriptor)


# --- files and settings -----------------------------------------------------------------------------------------------


def _security(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder) / "security"
        path.touch(0o600)
        path.write_bytes(data)
        read_security_file(path, "VARIABLE")


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _environment(prefix: str, load: Callable[[], object]) -> Callable[[bytes], None]:
    """Lines of NAME=VALUE, without the prefix."""

    def take(data: bytes) -> None:
        lines = data.replace(b"\0", b"").decode("utf-8", "surrogateescape").split("\n")
        given = dict(line.split("=", 1) for line in lines if "=" in line)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(prefix)}
        with patch.dict(os.environ, {**clean, **{f"{prefix}{k}": v for k, v in given.items()}}, clear=True):
            load()

    return take


def _texts(data: bytes) -> None:
    """Names, numbers and durations, as they are typed."""
    text = data.decode("utf-8", "replace")
    readers: tuple[Callable[[], object], ...] = (
        lambda: provision.parse_key(text),
        lambda: parse_key_id(text),
        lambda: parse_uuid(text),
        lambda: token_file.parse_rate(text),
        lambda: token_file.check_name(text),
        lambda: topics.check_prefix(text),
        lambda: topics.is_reply_topic("p.", text),
        lambda: settings.index_of(text),
        lambda: settings.is_loopback(text),
        lambda: options.read_duration("--x", text, 1, 10**9),
        lambda: options.read_base64("--x", text.lstrip("@")),
    )
    for read in readers:
        try:
            read()
        except (BadInput, typer.BadParameter):
            pass
        except ValueError as error:
            assert type(error) is ValueError, "a slip, not a refusal"  # noqa: PT017


_SEALER: Final = Sealer(Secret(b"k" * 32), b"o" * 32, Index(1), bytes)


def _sealed_file(data: bytes) -> None:
    _SEALER.open(NOWHERE, "share", "default", data)


def _state_files(data: bytes) -> None:
    """A journal and a share that open, and hold what nobody wrote."""
    state = StateDir(NOWHERE, _SEALER)
    state._parse_journal(_SEALER.seal("journal", "", data))


def _share_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder) / "default"
        path.write_bytes(_SEALER.seal("share", "default", data))
        StateDir(Path(folder), _SEALER)._open_share(path, "default")


def _checked(data: bytes) -> bytes:
    return data + sha256(data).digest()


def _journal(data: bytes) -> None:
    """Whole and of this replica, but not what it wrote: the machine refuses to start from it, or starts."""
    saved = Durable(_checked(data), {})
    restore(saved, Index(1), machines.HOUSE.trust, playbook.QUICK)


def _share(data: bytes) -> None:
    unpack(KeySecrets, _checked(data))
    saved = machines.places()[-1].seat
    restore(
        Durable(durable(saved).public, {playbook.KEY: Secret(_checked(data))}),
        Index(1),
        machines.HOUSE.trust,
        playbook.QUICK,
    )


@cache
def _saved() -> tuple[bytes, bytes]:
    found = durable(machines.places()[-1].seat)
    return found.public[:-32], found.secrets[playbook.KEY].expose()[:-32]


def _audit_log(data: bytes) -> None:
    for _ in LogReader(NOWHERE, io.BytesIO(data)):
        pass


@cache
def _saved_log() -> bytes:
    file = io.BytesIO()
    writer = LogWriter(file, playbook.TOPIC)
    for at in range(3):
        writer.add(Logged(at, 1_700_000_000_000 + at, b"record %d" % at))
    writer.end()
    return file.getvalue()


TOKENS: Final = (
    b'[[token]]\nname = "billing"\nsha256 = "' + b"9f" * 32 + b'"\nkeys = ["default"]\nrate = "6000/minute"\n'
)
MULTIPART: Final = (
    b"multipart/form-data; boundary=x; charset=utf-8\n"
    b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n--x--\r\n'
)
TRACE: Final = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SIGNATURE: Final = {
    "request_id": "r",
    "key_id": "default",
    "epoch": 1,
    "signature": "A" * 86 + "==",
    "public_key": "A" * 43 + "=",
    "message_sha256": sha256(b"hello").hexdigest(),
    "signers": [1, 2],
    "reference": "a",
    "threshold": 2,
}
CLUSTER: Final = {
    "keys": [{"key_id": "default", "epoch": 1, "quorum_margin": 1, "ceremony": None}],
    "replicas": [],
    "apis": [{"index": 0, "instance_id": "x", "last_seen_ms": 1}],
}


def formats() -> Sequence[Decoder]:
    """All of them."""
    asked = (Problem, BadInput)

    def of(*seeds: bytes) -> Callable[[], list[bytes]]:
        return lambda: list(seeds)

    return (
        Decoder("json-sign", _sign, asked, of(_json({"text": "é"}), b'{"data":"AAEC","key_id":"default"}'), JSON_WORDS),
        Decoder(
            "json-batch",
            _batch,
            asked,
            of(_json({"items": [{"text": "a", "reference": "r"}, {"data": "AAEC"}]})),
            JSON_WORDS,
        ),
        Decoder(
            "json-verify",
            _verify,
            asked,
            of(_json({"text": "", "signature": "AAEC", "public_key": "AAEC"})),
            JSON_WORDS,
        ),
        Decoder(
            "json-socket",
            _socket,
            (*asked, UnicodeDecodeError),
            of(_json({"id": "1", "text": "a"}), _json({"id": "t", "token": "sft_x"})),
            JSON_WORDS,
        ),
        Decoder(
            "form",
            _form,
            asked,
            of(b"application/x-www-form-urlencoded\ntext=a%20b", MULTIPART),
            [b"charset=utf-7", b"+2AA-", b"%ff", b"\r\n--x", b"filename=", b"text"],
            rounds=60,
        ),
        Decoder(
            "headers",
            _headers,
            (),
            of(b"\n".join([TRACE, TRACE, b"Bearer sft_abc"]), b"http://[::1]:1\n[::1]:1\nBearer x"),
            [b"http://[", b"10.0.0.1", b"::ffff:10.0.0.1", b",", b"-"],
        ),
        Decoder(
            "client",
            _answer,
            (),
            of(
                _json(SIGNATURE),
                _json({"results": [SIGNATURE]}),
                _json({"results": [{"error": {"detail": "x"}}]}),
                _json(CLUSTER),
                _json({"detail": "d", "type": "a:b", "errors": [{"field": "f", "detail": "d"}]}),
            ),
            [*JSON_WORDS, b'"epoch"', b'"signers"', b"Infinity"],
        ),
        Decoder(
            "csv",
            _csv,
            (InputError,),
            of(b"reference,text\na,hello\n", b'\xef\xbb\xbfreference,data_base64\r\n"a ""b""",aGVsbG8=\r\n'),
            [b'"', b",", b"\r", b"\n", b"\0", b"text", b"data_base64", b"\xff"],
        ),
        Decoder(
            "csv-results",
            _resume,
            (InputError,),
            of(b"reference,text,signature,key_id,epoch,public_key,signers,request_id,error\na,hello,x,k,1,p,1 2,r,\n"),
            [b'"', b",", b"\n"],
            rounds=60,
        ),
        Decoder(
            "tokens",
            lambda data: token_file.parse(data, NOWHERE),
            (BadInput,),
            of(TOKENS),
            [b"[[token]]", b"1979-05-27T07:32:00Z", b"0x", b"1" * 4400, b"inf", b'"""', b"rate = ", b"[" * 300],
        ),
        Decoder(
            "security",
            _security,
            (BadInput,),
            of(b"# SASL\nsasl.username=a\nsasl.password = b=c\n"),
            [b"=", b"\n", b"\x85"],
            rounds=60,
        ),
        Decoder(
            "settings-pod",
            _environment(settings.ENV_PREFIX, settings.load),
            (BadInput,),
            of(
                b'INDEX=0\nPORT=80\nALLOWED_HOSTS=["a"]\nPINNED_KEYS={}\nADDRESS_RATE=1/second\nTRUSTED_PROXIES=["10.0.0.0/8"]\nOTLP_ENDPOINT=http://a:1'
            ),
            [b"AUTH=none", b"TOPIC_PREFIX=a.", b"[", b"{", b"http://[", b"1" * 4400],
            rounds=60,
        ),
        Decoder(
            "settings-signer",
            _environment(signer_settings.PREFIX, signer_settings.load),
            (BadInput,),
            of(b"INDEX=1\nKAFKA_BOOTSTRAP=a:1\nSECRETS_DIR=/x\nSTATE_DIR=/y\nBEAT_MS=500\nOTLP_ENDPOINT=http://a:1"),
            [b"LOG_LEVEL=", b"1e9", b"[", b"http://["],
            rounds=60,
        ),
        Decoder(
            "texts",
            _texts,
            (),
            of(b"payments:2", b"100/second", b"20s", b"aGVsbG8=", b"rest-api-2", b"demo.", b"127.0.0.1"),
            [b"\xd9\xa3", b":", b"/", b"\xc2\xb2"],
        ),
        Decoder(
            "sealed-file",
            _sealed_file,
            (BadInput,),
            of(_SEALER.seal("share", "default", b"x")),
            [b'"seat":1', b"[" * 900],
        ),
        Decoder("state-journal", _state_files, (BadInput,), of(_pack((b"fold", b"default", b"g" * 16)))),
        Decoder("state-share", _share_file, (BadInput,), of(_pack((b"\x01" + b"g" * 16, b"content"))), rounds=60),
        Decoder("journal", _journal, (BadInput,), lambda: [_saved()[0]], longest=65536, rounds=60),
        Decoder("share", _share, (BadInput,), lambda: [_saved()[1]], longest=65536, rounds=60),
        Decoder(
            "audit-log",
            _audit_log,
            (BadInput, DoesNotHold),
            lambda: [_saved_log()],
            [*JSON_WORDS, b'"offset"', b'"end"'],
        ),
    )
