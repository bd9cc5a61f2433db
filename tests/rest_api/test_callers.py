"""Who may call, for which keys, and how often: over HTTP, with the real committee behind it."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadInput
from common.ids import KeyId
from rest_api import token_file
from rest_api.callers import Callers, TooFast
from rest_api.settings import load
from rest_api.token_file import Rate, Token
from tests.brokers import until
from tests.rest_api.test_sign import a_problem
from tests.rest_api.world import Pod, World, running_pod

pytestmark = pytest.mark.anyio

BILLING, LATE, SLOW = "sft_billing", "sft_late", "sft_slow"


def write(path: Path, *tokens: Token) -> Path:
    path.touch(mode=0o600)
    path.write_text("\n".join(token_file.entry(token) for token in tokens))
    return path


def token(name: str, secret: str, *keys: str, rate: Rate | None = None) -> Token:
    return Token(name, token_file.digest(secret), frozenset(map(KeyId, keys)) or None, rate)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
async def guarded(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pod]:
    path = write(
        tmp_path_factory.mktemp("tokens") / "tokens.toml",
        token("billing", BILLING),
        token("latecomer", LATE, "late"),
        token("slow", SLOW, "default", rate=Rate(5, "hour")),
    )
    async with running_pod(shared_world.settings(tokens_file=path)) as pod:
        yield pod


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/v1/sign", {"text": "a"}),
        ("POST", "/v1/sign/batch", {"items": [{"text": "a"}]}),
        ("POST", "/v1/keys/default/refresh", None),
    ],
)
async def test_what_uses_the_key_asks_for_a_token(guarded: Pod, method: str, path: str, content: Any) -> None:
    missing = await guarded.http.request(method, path, json=content)
    a_problem(missing, 401, "unauthorized")
    assert missing.headers["www-authenticate"] == 'Bearer realm="signer-flow"'
    for wrong in ("Bearer nobody", "Basic c2Z0OmE=", "bearer", "Bearer \xff", BILLING):
        header = {"Authorization": wrong.encode("latin-1")}
        refused = await guarded.http.request(method, path, json=content, headers=header)  # type: ignore[arg-type]
        a_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"].endswith('error="invalid_token"')
    answer = await guarded.http.request(method, path, json=content, headers=bearer(BILLING))
    assert answer.status_code in {200, 202}


async def test_the_form_of_a_browser_is_refused_with_the_reason_where_tokens_are_needed(guarded: Pod) -> None:
    page = await guarded.http.post("/sign", data={"text": "a"})
    assert page.status_code == 401
    assert page.headers["www-authenticate"].startswith("Bearer")
    assert "Authorization: Bearer" in page.text
    line = await guarded.http.post("/sign", data={"text": "a"}, headers={"Accept": "text/plain", **bearer(BILLING)})
    assert line.text.startswith("ok: ")


async def test_public_things_stay_open(guarded: Pod) -> None:
    for path in ("/sign", "/docs", "/v1/keys", "/v1/keys/default", "/.well-known/jwks.json", "/v1/cluster"):
        assert (await guarded.http.get(path)).status_code == 200
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert (await guarded.http.get(path)).status_code == 200
    signed = (await guarded.http.post("/v1/sign", json={"text": "a"}, headers=bearer(BILLING))).json()
    body = {"text": "a", "signature": signed["signature"]}
    assert (await guarded.http.post("/v1/verify", json=body)).json() == {"valid": True}


async def test_the_name_of_the_token_stands_in_the_record(guarded: Pod, shared_world: World) -> None:
    shared_world.committee.reset()
    await guarded.http.post("/v1/sign", json={"text": "a"}, headers=bearer(BILLING))
    items = {"items": [{"text": "b"}, {"text": "c"}]}
    await guarded.http.post("/v1/sign/batch", json=items, headers=bearer(BILLING))
    asked = shared_world.committee.asked_items()
    assert [item.principal for _, item in asked] == ["billing"] * 3


async def test_a_key_that_the_token_is_not_for_is_refused(guarded: Pod, shared_world: World) -> None:
    shared_world.committee.reset()
    answer = await guarded.http.post("/v1/sign", json={"text": "a"}, headers=bearer(LATE))
    problem = a_problem(answer, 403, "key-not-allowed")
    assert "default" in problem["detail"]
    for path, body in (("/v1/sign/batch", {"items": [{"text": "a"}]}), ("/v1/keys/default/refresh", None)):
        a_problem(await guarded.http.post(path, json=body, headers=bearer(LATE)), 403, "key-not-allowed")
    assert shared_world.committee.asked_items() == []


async def test_a_rate_counts_items_and_says_when_there_is_room(guarded: Pod, shared_world: World) -> None:
    shared_world.committee.reset()
    items = {"items": [{"text": str(n)} for n in range(6)]}
    never = await guarded.http.post("/v1/sign/batch", json=items, headers=bearer(SLOW))
    assert "at most 5" in a_problem(never, 422, "batch-over-rate")["detail"]
    # What was refused cost the one item that is taken before the body is read.
    four = {"items": items["items"][:4]}
    assert (await guarded.http.post("/v1/sign/batch", json=four, headers=bearer(SLOW))).status_code == 200
    late = await guarded.http.post("/v1/sign", json={"text": "a"}, headers=bearer(SLOW))
    assert a_problem(late, 429, "rate-limited")["retryable"] is True
    assert 1 <= int(late.headers["retry-after"]) <= 3600
    assert len(shared_world.committee.asked_items()) == 4
    # Others are served.
    assert (await guarded.http.post("/v1/sign", json={"text": "a"}, headers=bearer(BILLING))).status_code == 200


async def test_refusals_are_logged_with_the_name_and_never_with_the_token(
    own_world: World, tmp_path: Path, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    path = write(tmp_path / "tokens.toml", token("latecomer", LATE, "late"))
    async with running_pod(own_world.settings(tokens_file=path)) as pod:
        await pod.http.post("/v1/sign", json={"text": "a"}, headers=bearer(LATE))
    lines = [line for line in log_lines() if line["event"] == "a caller was refused"]
    assert [(line["principal"], line["status"], line["route"]) for line in lines] == [("latecomer", 403, "/v1/sign")]
    assert lines[0]["request_id"]
    assert LATE not in json.dumps(log_lines())


async def test_a_token_for_a_key_that_there_is_not_is_told_at_the_start_and_when_the_file_changes(
    own_world: World, tmp_path: Path, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    path = write(tmp_path / "tokens.toml", token("billing", BILLING, "default", "defualt"), token("all", "every"))

    def said() -> list[list[str]]:
        return [line["tokens"] for line in log_lines() if line["event"].startswith("tokens name keys")]

    async with running_pod(own_world.settings(tokens_file=path)) as pod:
        assert said() == [["billing: defualt"]]
        # It opens what is right in it all the same.
        answer = await pod.http.post("/v1/sign", json={"text": "a"}, headers=bearer(BILLING))
        assert answer.status_code == 200
        write(path, token("billing", BILLING, "default"), token("new", LATE, "late", "later"))
        await until(lambda: len(said()) == 2, "the new file is looked at")
        assert said()[1] == ["new: later"]


async def test_a_changed_file_is_taken_and_a_broken_one_leaves_the_old(
    own_world: World, tmp_path: Path, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    path = write(tmp_path / "tokens.toml", token("first", "one"))
    async with running_pod(own_world.settings(tokens_file=path)) as pod:

        async def status(secret: str) -> int:
            return (await pod.http.post("/v1/sign", json={"text": "a"}, headers=bearer(secret))).status_code

        def said(event: str) -> bool:
            return any(line["event"].startswith(event) for line in log_lines())

        assert (await status("one"), await status("two")) == (200, 401)
        write(path, token("second", "two"))
        await until(lambda: said("the token file was read again"), "the new file is taken")
        assert (await status("one"), await status("two")) == (401, 200)
        path.write_text("[[token]]\nname = 'third'\n")
        await until(lambda: said("the new token file is refused"), "the broken file is told")
        assert (await status("one"), await status("two")) == (401, 200)
        (line,) = [line for line in log_lines() if line["event"].startswith("the new token file is refused")]
        assert "token 1: sha256 is missing" in line["detail"]


async def test_an_address_is_held_to_its_rate_where_nobody_has_a_token(own_world: World) -> None:
    settings = own_world.settings(address_rate="2/hour", trusted_proxies=["127.0.0.0/8"])
    async with running_pod(settings) as pod:

        async def status(forwarded: str) -> int:
            header = {"X-Forwarded-For": forwarded}
            return (await pod.http.post("/v1/sign", json={"text": "a"}, headers=header)).status_code

        assert [await status("192.0.2.1") for _ in range(3)] == [200, 200, 429]
        assert await status("192.0.2.2") == 200
        # What the caller himself put before his address is not believed.
        assert await status("192.0.2.9, 192.0.2.1") == 429
        assert own_world.committee.asked_items()[0][1].principal == "anonymous"


async def test_guessing_tokens_is_held_to_the_rate_of_the_address(own_world: World, tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.toml", token("first", "one"))
    async with running_pod(own_world.settings(tokens_file=path, address_rate="3/hour")) as pod:
        statuses = [
            (await pod.http.post("/v1/sign", json={"text": "a"}, headers=bearer(f"guess-{n}"))).status_code
            for n in range(5)
        ]
        assert statuses == [401, 401, 401, 429, 429]
        # Who has a token is not held up by a neighbour behind the same address.
        assert (await pod.http.post("/v1/sign", json={"text": "a"}, headers=bearer("one"))).status_code == 200


@pytest.mark.parametrize(
    ("forwarded", "counted"),
    [
        ([], "10.0.0.7"),
        (["192.0.2.1"], "192.0.2.1"),
        (["198.51.100.1, 192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.8"], "192.0.2.1"),
        (["192.0.2.1", "10.0.0.8"], "192.0.2.1"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::/64"),
        (["2001:db8:1:2:ffff::1"], "2001:db8:1:2::/64"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, rubbish"], "10.0.0.7"),
        ([""], "10.0.0.7"),
        (["192.0.2.1," + "10.0.0.8," * 40 + "10.0.0.8"], "10.0.0.8"),
    ],
)
def test_the_address_is_the_nearest_that_no_trusted_proxy_has(forwarded: list[str], counted: str) -> None:
    callers = Callers(None, trusted_proxies=load(index=0, trusted_proxies=["10.0.0.0/8"]).trusted_proxies)
    assert callers.address_of("10.0.0.7", forwarded) == counted


def test_without_trusted_proxies_nobody_names_his_own_address() -> None:
    assert Callers(None).address_of("192.0.2.7", ["198.51.100.1"]) == "192.0.2.7"
    assert Callers(None).address_of(None, ["198.51.100.1"]) == "unknown"


def test_addresses_beyond_all_measure_share_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rest_api.callers.MOST_ADDRESSES", 10)
    callers = Callers(None, Rate(1, "hour"))
    refused = 0
    for n in range(200):
        try:
            callers.charge(callers.anonymous(f"192.0.2.{n}"))
        except TooFast:
            refused += 1
    assert refused > 150
    assert len(callers._counts.expirations) < 30


def test_tokens_allow_a_public_address_and_contradict_no_auth(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    assert load(index=0, host="0.0.0.0", tokens_file=path).rate_of_addresses == Rate(1000, "second")  # noqa: S104
    assert load(index=0).rate_of_addresses is None
    assert load(index=0, host="0.0.0.0", auth="none", address_rate="none").rate_of_addresses is None  # noqa: S104
    with pytest.raises(BadInput, match="TOKENS_FILE contradict"):
        load(index=0, auth="none", tokens_file=path)
    with pytest.raises(BadInput, match="SIGNER_REST_API_ADDRESS_RATE: a rate is written like"):
        load(index=0, address_rate="fast")
    with pytest.raises(BadInput, match="SIGNER_REST_API_TRUSTED_PROXIES"):
        load(index=0, trusted_proxies=["everybody"])


async def test_the_openapi_document_says_where_a_token_belongs(guarded: Pod) -> None:
    document = (await guarded.http.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    with_token = {path for path, item in document["paths"].items() for each in item.values() if "security" in each}
    assert with_token == {"/v1/sign", "/v1/sign/batch", "/v1/keys/{key_id}/refresh"}
    assert {"401", "403", "429"} <= set(document["paths"]["/v1/sign"]["post"]["responses"])
