"""The page that needs no JavaScript, the API's own pages, and what is said of keys and of the cluster."""

import asyncio
import base64
import hashlib
import html
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from common import ed25519
from common.ids import Index, Instant
from common.kafka.port import Record
from common.wire import codec, envelope, topics
from common.wire.messages import RefusalCode, ReplicaState
from rest_api import models, token_file
from rest_api.problems import TABLE
from rest_api.token_file import Token
from tests.brokers import until
from tests.rest_api.test_sign import KIB64, a_problem
from tests.rest_api.world import Pod, World, running_pod

pytestmark = pytest.mark.anyio

PLAIN = {"Accept": "text/plain"}


def line_of(page: str) -> str:
    found = re.search(r"<output[^>]*>(.*?)</output>", page, re.DOTALL)
    assert found is not None, page
    return html.unescape(found.group(1))


async def test_the_form_signs_without_javascript(pod: Pod, shared_world: World) -> None:
    page = await pod.http.get("/sign")
    assert page.status_code == 200
    assert '<form method="post" action="/sign"' in page.text
    answer = await pod.http.post("/sign", data={"text": "<b>grüße</b> & 'so'"})
    assert answer.status_code == 200
    line = line_of(answer.text)
    assert line.startswith("ok: ")
    message = "<b>grüße</b> & 'so'".encode()
    assert ed25519.verify(shared_world.trust.group_pub, message, base64.b64decode(line.removeprefix("ok: ")))
    # Shown again, as text.
    assert "<b>grüße</b>" not in answer.text
    assert "&lt;b&gt;grüße&lt;/b&gt;" in answer.text


async def test_for_plain_text_there_is_that_one_line_alone(pod: Pod, shared_world: World) -> None:
    answer = await pod.http.post("/sign", data={"text": "a"}, headers=PLAIN)
    assert answer.headers["content-type"].startswith("text/plain")
    assert re.fullmatch(r"ok: [A-Za-z0-9+/]{86}==\n", answer.text)
    shared_world.committee.all_do(lambda asked: asked.seat.refuse(asked, RefusalCode.QUORUM_LOST, retryable=True))
    answer = await pod.http.post("/sign", data={"text": "a"}, headers=PLAIN)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert re.fullmatch(r"err: [^\n]+\n", answer.text)


async def test_either_encoding_of_forms_and_an_empty_text_sign(pod: Pod) -> None:
    answer = await pod.http.post("/sign", files={"text": (None, "multipart\r\nlines")}, headers=PLAIN)
    assert answer.text.startswith("ok: ")
    assert (await pod.http.post("/sign", data={"text": ""}, headers=PLAIN)).text.startswith("ok: ")
    assert (await pod.http.post("/sign", data={"text": "x" * KIB64}, headers=PLAIN)).text.startswith("ok: ")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"text=a&text=b", "application/x-www-form-urlencoded", 422),
        (b"other=a", "application/x-www-form-urlencoded", 422),
        (b"", "application/x-www-form-urlencoded", 422),
        (b"text=%ff", "application/x-www-form-urlencoded", 400),
        (b"text=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"f%d=1" % n for n in range(50)), "application/x-www-form-urlencoded", 400),
        (b"text=" + b"x" * (KIB64 + 1), "application/x-www-form-urlencoded", 413),
        (b"text=" + b"x" * 600_000, "application/x-www-form-urlencoded", 413),
        (b"no parts", "multipart/form-data; boundary=b", 400),
        (b"--b\r\nrubbish", "multipart/form-data; boundary=b", 422),
        (b"x", "multipart/form-data", 400),
        (
            b'--b\r\nContent-Disposition: form-data; name="text"; filename="f"\r\n\r\nfile\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            400,
        ),
        (b'{"text": "a"}', "application/json", 415),
        (b"text=signer-flow%2Finternal%2Fv1%00x", "application/x-www-form-urlencoded", 422),
    ],
)
async def test_a_bad_form_says_err_with_the_status_of_the_api(pod: Pod, content: bytes, kind: str, status: int) -> None:
    answer = await pod.http.post("/sign", content=content, headers={"Content-Type": kind, **PLAIN})
    assert (answer.status_code, answer.text[:5]) == (status, "err: "), answer.text
    page = await pod.http.post("/sign", content=content, headers={"Content-Type": kind})
    assert page.status_code == status
    assert line_of(page.text).startswith("err: ")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1"},
    ],
)
async def test_a_form_on_a_page_of_another_site_is_refused(
    pod: Pod, shared_world: World, headers: dict[str, str]
) -> None:
    answer = await pod.http.post("/sign", data={"text": "a"}, headers={**headers, **PLAIN})
    assert answer.status_code == 403
    assert shared_world.committee.asked_items() == []


async def test_our_own_form_and_a_program_are_not(pod: Pod) -> None:
    for headers in ({}, {"Origin": pod.url}, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}):
        answer = await pod.http.post("/sign", data={"text": "a"}, headers={**headers, **PLAIN})
        assert answer.status_code == 200, headers


async def test_the_pages_load_nothing_foreign_and_run_our_own_files_only(pod: Pod) -> None:
    for path, scripted in (("/sign", True), ("/sign?plain", False), ("/docs", False)):
        page = await pod.http.get(path)
        policy = page.headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in page.headers["content-security-policy"]
        # No inline script could run, and no script can make markup out of text.
        assert ("script-src 'self'" in policy) == scripted
        assert ("require-trusted-types-for 'script'" in policy) == scripted
        assert any(each.startswith("script-src") for each in policy) == scripted
        assert page.headers["x-content-type-options"] == "nosniff"
        assert re.findall(r"<script[^>]*>", page.text) == (
            ['<script type="module" src="/static/sign.js">'] if scripted else []
        )
        assert re.search(r"\s(style|on[a-z]+)=", page.text) is None
        for address in re.findall(r'(?:href|src)="([^"]+)"', page.text):
            assert address.startswith(("/", "#", "data:image/svg+xml,")), address


async def test_static_files_are_asked_for_anew_and_sent_only_when_they_changed(pod: Pod) -> None:
    css = await pod.http.get("/static/page.css")
    assert css.headers["content-type"].startswith("text/css")
    script = await pod.http.get("/static/sign.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = await pod.http.get("/static/sign.js", headers={"If-None-Match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    a_problem(await pod.http.get("/static/../sign.html"), 404, "not-found")
    a_problem(await pod.http.get("/static/base.html"), 404, "not-found")


async def test_every_module_that_a_script_imports_is_there(pod: Pod) -> None:
    waiting, seen = ["sign.js"], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        script = await pod.http.get(f"/static/{name}")
        assert script.status_code == 200, name
        assert re.search(r"https?://(?!\$)", script.text) is None, name
        waiting += re.findall(r'from "\./([a-z]+\.js)"', script.text)
    assert len(seen) >= 7


async def test_a_key_is_shown_in_forms_that_other_tools_read(pod: Pod, shared_world: World) -> None:
    raw = shared_world.trust.group_pub
    key = (await pod.http.get("/v1/keys/default")).json()
    models.KeyInfo.model_validate(key)
    loaded = load_pem_public_key(key["public_key_pem"].encode())
    assert isinstance(loaded, Ed25519PublicKey)
    assert loaded.public_bytes(Encoding.Raw, PublicFormat.Raw) == raw
    assert base64.b64decode(key["public_key"]) == raw
    digest = base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")
    assert key["fingerprint"] == f"SHA256:{digest}"
    assert base64.urlsafe_b64decode(key["jwk"]["x"] + "=") == raw
    assert (key["jwk"]["kty"], key["jwk"]["crv"], key["jwk"]["alg"]) == ("OKP", "Ed25519", "Ed25519")
    assert (key["epoch"], key["threshold"], key["signers"]) == (1, 2, 3)
    assert key["last_refresh"] == "2023-11-14T22:13:20.000Z"
    assert key["next_refresh"] is None
    assert (await pod.http.get("/v1/keys")).json() == {"keys": [key]}
    jwks = (await pod.http.get("/.well-known/jwks.json")).json()
    models.JwkSet.model_validate(jwks)
    assert jwks["keys"] == [key["jwk"]]
    a_problem(await pod.http.get("/v1/keys/none"), 404, "unknown-key")
    assert key["ceremony"] is None


async def test_the_cluster_is_shown_as_it_is_heard(own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        await until(lambda: len(pod.gateway.routing.seats) == 3 and pod.gateway.pods.pods, "beats")
        seen = (await pod.http.get("/v1/cluster")).json()
        models.ClusterResponse.model_validate(seen)
        assert [(key["key_id"], key["epoch"], key["quorum_margin"], key["threshold"]) for key in seen["keys"]] == [
            ("default", 1, 1, 2),
            ("late", 0, -2, 2),
        ]
        assert [each["index"] for each in seen["replicas"]] == [1, 2, 3]
        assert seen["replicas"][0]["partitions"] == [0, 3, 6, 9]
        assert seen["replicas"][0]["epochs"] == {"default": 1}
        own_world.committee.seats[Index(2)].skew_ms = -1234
        await until(lambda: pod.gateway.routing.seats[Index(2)].beat.clock_skew_ms, "the next beat")
        seen = (await pod.http.get("/v1/cluster")).json()
        assert [each["skew_ms"] for each in seen["replicas"]] == [0, -1234, 0]
        assert seen["apis"][0]["instance_id"] == pod.gateway.instance_id
        own_world.committee.seats[Index(3)].beating = False
        await until(lambda: not pod.gateway.routing.fresh(Index(3)), "the silence is heard")
        seen = (await pod.http.get("/v1/cluster")).json()
        assert seen["keys"][0]["quorum_margin"] == 0
        assert seen["replicas"][2]["state"] == "silent"
        assert seen["replicas"][2]["last_seen_ms"] >= 1500


async def test_a_pod_whose_clock_is_wrong_measures_it_and_says_so(
    own_world: World, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with running_pod(own_world.settings()) as pod:
        gateway = pod.gateway
        await until(lambda: gateway.pods.pods, "its own beat")
        topic = topics.presence(own_world.trust.prefix).name
        for _ in range(3):  # what a broker would return whose clock is 700 ms behind ours
            now = Instant(time.time_ns() // 1_000_000)
            beat = codec.encode(gateway.pods.beat(ReplicaState.READY, False, 0, now))
            sealed = envelope.seal(gateway._sealer, topic, beat)
            gateway._inbox.deliver([Record(topic, 0, 0, now - 700, None, sealed)])

        await until(lambda: [each["skew_ms"] for each in gateway.pods.listed()] == [700], "its next beat")
        apis = (await pod.http.get("/v1/cluster")).json()["apis"]
        assert [each["skew_ms"] for each in apis] == [700]
        figures = (await pod.http.get(pod.admin_url + "/metrics")).text
        assert "signer_flow_clock_skew_seconds 0.7" in figures

        def said() -> list[int]:
            return [line["skew_ms"] for line in log_lines() if line["event"] == "clock differs from the broker's"]

        await until(said, "it is said")
        assert said() == [700]


async def test_the_admin_port_has_health_and_figures(pod: Pod) -> None:
    await pod.http.post("/v1/sign", json={"text": "a"})
    await pod.http.get("/invented/by/a/stranger")
    assert (await pod.http.get(pod.admin_url + "/healthz")).status_code == 200
    assert (await pod.http.get(pod.admin_url + "/readyz")).json()["status"] == "ok"
    figures = (await pod.http.get(pod.admin_url + "/metrics")).text
    assert 'signer_flow_http_requests_total{method="POST",route="/v1/sign",status="200"}' in figures
    assert "stranger" not in figures
    assert 'signer_flow_answers_total{kind="signed"}' in figures
    assert 'signer_flow_presence_age_seconds{role="signer",seat="1"}' in figures


async def test_the_openapi_document_is_3_1_and_each_of_its_examples_runs(pod: Pod) -> None:
    document = (await pod.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    ran = 0
    for path, methods in document["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        if body is None:
            continue
        model = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        for example in document["components"]["schemas"][model]["examples"]:
            answer = await pod.http.post(path, json=example)
            assert answer.status_code == 200, (path, example, answer.text)
            shown = methods["post"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
            getattr(models, shown.rsplit("/", 1)[1]).model_validate(answer.json())
            if path == "/v1/verify":
                assert answer.json() == {"valid": True}
            ran += 1
    assert ran >= 4
    assert every_reference_resolves(document)
    page = await pod.http.get("/docs")
    assert page.status_code == 200
    assert f"curl {pod.url}/v1/sign \\\n" in html.unescape(page.text)
    for name, row in TABLE.items():
        assert f"<code>{row.status} {name}</code> {row.title}" in html.unescape(page.text)
    assert "a token, and a form" not in (await pod.http.get("/sign?plain")).text
    assert "Bearer" not in page.text.partition("</ol>")[0]


async def test_the_address_alone_leads_to_the_page(pod: Pod) -> None:
    answer = await pod.http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/sign")


def commands_of(page: str) -> list[str]:
    """What a newcomer copies from the first section of /docs."""
    return [html.unescape(found) for found in re.findall(r'<pre data-step="\w+"><code>(.*?)</code>', page, re.DOTALL)]


async def run_all(commands: list[str], folder: Path, **variables: str) -> str:
    """Run them one after the other in a shell, as they stand there; whatever fails ends it."""
    command = ["sh", "-ec", "\n".join(commands)]
    environment = {"PATH": os.environ["PATH"], "no_proxy": "*", **variables}
    done = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(done.communicate(), 60)
    assert done.returncode == 0, said.decode()
    return said.decode()


async def test_a_newcomer_signs_and_checks_with_the_commands_of_the_documentation(
    pod: Pod, shared_world: World, tmp_path: Path
) -> None:
    page = await pod.http.get("/docs")
    commands = commands_of(page.text)
    assert len(commands) == 3
    assert "Signature Verified Successfully" in await run_all(commands, tmp_path)
    assert ed25519.verify(shared_world.trust.group_pub, b"hello", (tmp_path / "hello.sig").read_bytes())
    # Nothing that the page shows comes from anywhere else: it is whole without a network.
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


async def test_where_tokens_are_needed_the_documentation_and_the_plain_form_say_so(
    own_world: World, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.toml"
    token = token_file.new_token()
    path.touch(mode=0o600)
    path.write_text(token_file.entry(Token("billing", token_file.digest(token))))
    async with running_pod(own_world.settings(tokens_file=path)) as pod:
        commands = commands_of((await pod.http.get("/docs")).text)
        said = await run_all(commands, tmp_path, TOKEN=token)
        assert "Signature Verified Successfully" in said
        needed = "signs for callers with a token, and a form without JavaScript cannot send one"
        for address in ("/sign", "/sign?plain"):
            page = (await pod.http.get(address)).text
            assert needed in page
            # With JavaScript the page asks for the token itself.
            assert (f'<noscript><p class="notice">This service {needed}' in page) == (address == "/sign")


def every_reference_resolves(document: dict[str, Any]) -> bool:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                assert reference.rsplit("/", 1)[1] in document["components"]["schemas"], reference
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    return True


async def test_every_problem_that_can_be_is_a_valid_document() -> None:
    from rest_api import problems

    for code in problems.TABLE:
        body = problems.Problem(code, "detail", [("field", "wrong")]).body("id")
        models.ProblemBody.model_validate(body)
    assert set(problems.OF_REFUSAL) == set(RefusalCode)
    assert set(problems.OF_REFUSAL.values()) <= set(problems.TABLE)
