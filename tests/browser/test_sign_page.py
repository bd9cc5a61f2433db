"""The page /sign in a real browser: what it signs, what it believes, and how others can check the same."""

import asyncio
import base64
import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, WebSocketRoute, expect

from common import ed25519
from common.wire.messages import RefusalCode
from tests.browser.steps import EXAMPLE_FILE, ask, asked, choose, newest, to_be, visit
from tests.rest_api.test_sign import KIB64
from tests.rest_api.world import Asked, Pod, World, keypair

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_text_is_signed_and_verified_by_the_browser(page: Page, shared_world: World) -> None:
    text = "grüße,\n<b>'so'</b> & \U0001f58b"
    entry = await ask(page, text)
    await to_be(entry, "Verified")
    signature = await entry.locator("[data-part=signature]").inner_text()
    # Line ends stay as they were typed: it is not the form's encoding that is signed.
    assert ed25519.verify(shared_world.trust.group_pub, text.encode(), base64.b64decode(signature, validate=True))
    await expect(entry.locator("[data-part=title]")).to_have_text("grüße,")
    facts = await entry.locator("[data-part=facts]").inner_text()
    assert "replicas 1 and 2 of 3" in facts
    assert re.search(r"\d ms, there and back", facts)
    assert hashlib.sha256(text.encode()).hexdigest() in facts
    assert await entry.locator(".seat.signed").count() == 2
    await expect(entry).to_contain_text("Your browser checked this signature itself")


async def test_the_signature_is_copied_as_base64_and_hex_and_saved_as_64_bytes(
    page: Page, shared_world: World, tmp_path: Path
) -> None:
    entry = await ask(page, "a")
    await to_be(entry, "Verified")
    await entry.get_by_role("button", name="Copy base64").click()
    await expect(entry.get_by_role("button", name="Copied")).to_be_visible()
    base64_form = await page.evaluate("navigator.clipboard.readText()")
    await entry.get_by_role("button", name="Copy hex").click()
    await expect(entry.get_by_role("button", name="Copied")).to_have_count(2)
    hex_form = await page.evaluate("navigator.clipboard.readText()")
    async with page.expect_download() as saving:
        await entry.get_by_role("button", name="Download .sig").click()
    saved = await saving.value
    assert saved.suggested_filename == "message.sig"
    await saved.save_as(tmp_path / "message.sig")
    raw = (tmp_path / "message.sig").read_bytes()
    assert raw == base64.b64decode(base64_form) == bytes.fromhex(hex_form)
    assert ed25519.verify(shared_world.trust.group_pub, b"a", raw)


async def test_a_file_is_measured_and_hashed_before_anything_is_sent(page: Page, shared_world: World) -> None:
    content = bytes(range(256)) * 3
    await choose(page, {"name": "bild.png", "mimeType": "image/png", "buffer": content})
    row = page.locator("#chosen > li")
    await expect(row).to_contain_text("768 bytes")
    await expect(row).to_contain_text(hashlib.sha256(content).hexdigest())
    assert shared_world.committee.asked_items() == []
    await page.get_by_role("button", name="Sign", exact=True).click()
    entry = newest(page)
    await to_be(entry, "Verified")
    await expect(entry.locator("[data-part=title]")).to_have_text("bild.png")
    signature = base64.b64decode(await entry.locator("[data-part=signature]").inner_text())
    assert ed25519.verify(shared_world.trust.group_pub, content, signature)
    await expect(row).to_have_count(0)
    async with page.expect_download() as saving:
        await entry.get_by_role("button", name="Download .sig").click()
    assert (await saving.value).suggested_filename == "bild.png.sig"


async def test_a_file_that_is_too_large_is_refused_on_the_spot_with_a_remedy(page: Page, shared_world: World) -> None:
    large = bytes(KIB64 + 1)
    await choose(page, {"name": "backup.tar", "mimeType": "x", "buffer": large}, EXAMPLE_FILE)
    row = page.locator("#chosen > li.bad")
    await expect(row).to_contain_text("at most 64 KiB (65,536 bytes) are signed")
    await expect(row).to_contain_text("Sign its SHA-256 instead")
    await expect(row).to_contain_text(hashlib.sha256(large).hexdigest())
    await page.get_by_role("button", name="Sign", exact=True).click()
    await to_be(newest(page), "Verified")
    # The good one was signed, the other stays with its reason.
    assert {item.message for _, item in shared_world.committee.asked_items()} == {b"the contract\n"}
    await expect(row).to_have_count(1)
    await page.get_by_role("button", name="Sign", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("None of these files can be signed")
    await row.get_by_role("button", name="Remove backup.tar").click()
    await expect(page.locator("#chosen > li")).to_have_count(0)
    await page.get_by_role("button", name="Sign", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("Choose a file first")


async def test_a_file_of_exactly_the_limit_is_signed(page: Page) -> None:
    await choose(page, {"name": "full", "mimeType": "x", "buffer": b"\xff" * KIB64})
    await page.get_by_role("button", name="Sign", exact=True).click()
    await to_be(newest(page), "Verified")


async def test_a_text_that_is_too_large_is_refused_on_the_spot(page: Page, shared_world: World) -> None:
    text = "ü" * (KIB64 // 2) + "x"
    await page.get_by_label("Message").fill(text)
    await expect(page.get_by_role("alert")).to_contain_text("at most 64 KiB")
    # What may be signed in its place is shown, and is the digest of this text.
    await expect(page.locator("#measure [data-part=digest]")).to_have_text(hashlib.sha256(text.encode()).hexdigest())
    await page.get_by_role("button", name="Sign", exact=True).click()
    await page.get_by_label("Message").fill("small")
    await expect(page.locator("#complaint")).to_be_hidden()
    await expect(page.locator("details.entry")).to_have_count(0)
    assert shared_world.committee.asked_items() == []


async def test_size_and_digest_of_a_text_are_shown_while_it_is_typed(page: Page) -> None:
    await page.get_by_label("Message").press_sequentially("héllo")
    await expect(page.locator("#measure")).to_contain_text("6 bytes")
    await expect(page.locator("#measure")).to_contain_text(hashlib.sha256("héllo".encode()).hexdigest())


async def test_a_double_click_signs_once(page: Page) -> None:
    sign = page.get_by_role("button", name="Sign", exact=True)
    await page.get_by_label("Message").fill("twice")
    await sign.dblclick()
    await to_be(newest(page), "Verified")
    await choose(page, EXAMPLE_FILE)
    await sign.dblclick()
    await to_be(newest(page), "Verified")
    await expect(page.locator("details.entry")).to_have_count(2)
    # The second click found no file any more, and said so.
    await expect(page.locator("#complaint")).to_be_hidden()


async def test_a_name_that_would_be_read_backwards_is_shown_as_it_is(page: Page) -> None:
    await choose(page, EXAMPLE_FILE | {"name": "photo\u202egpj.exe"})
    await expect(page.locator("#chosen [data-part=name]")).to_have_text("photo[U+202E]gpj.exe")
    await expect(page.get_by_role("button", name="Remove photo[U+202E]gpj.exe")).to_be_visible()
    await page.get_by_role("button", name="Sign", exact=True).click()
    await to_be(newest(page), "Verified")
    await expect(newest(page).locator("[data-part=title]")).to_have_text("photo[U+202E]gpj.exe")
    await page.get_by_role("radio", name="Text").check()
    await to_be(await ask(page, "pay \u2067to\u2069 me"), "Verified")
    await expect(newest(page).locator("[data-part=title]")).to_have_text("pay [U+2067]to[U+2069] me")


async def test_a_text_that_runs_from_right_to_left_is_written_so(page: Page) -> None:
    direction = "getComputedStyle(document.querySelector('#text')).direction"
    await page.get_by_label("Message").fill("שלום")
    assert await page.evaluate(direction) == "rtl"
    await page.get_by_label("Message").fill("peace")
    assert await page.evaluate(direction) == "ltr"


async def test_many_messages_are_under_way_and_each_is_signed_once(page: Page, shared_world: World) -> None:
    held: list[Asked] = []
    shared_world.committee.all_do(held.append)
    files = [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"file %d" % n} for n in range(20)]
    await choose(page, *files)
    await page.get_by_role("button", name="Sign", exact=True).click()
    await expect(page.get_by_text("Being signed", exact=True)).to_have_count(20)
    shared_world.committee.reset()
    for each in held:
        each.seat.sign(each)
    await expect(page.get_by_text("Verified", exact=True)).to_have_count(20)
    for n in range(20):
        entry = page.locator("details.entry").filter(has_text=f"{n}.txt").first
        signature = base64.b64decode(await entry.locator("[data-part=signature]").text_content() or "")
        name = await entry.locator("[data-part=title]").text_content() or ""
        message = b"file " + name.removesuffix(".txt").encode()
        assert ed25519.verify(shared_world.trust.group_pub, message, signature)


async def test_what_the_service_refuses_is_said_with_its_reason(page: Page, shared_world: World) -> None:
    shared_world.committee.all_do(lambda asked: asked.seat.refuse(asked, RefusalCode.QUORUM_LOST, retryable=True))
    entry = await ask(page, "a")
    await to_be(entry, "Not signed")
    await expect(entry.locator("[data-part=verdict]")).to_contain_text("Too few signers are up")
    shared_world.committee.reset()
    await entry.get_by_role("button", name="Ask again").click()
    await expect(page.locator("details.entry")).to_have_count(2)
    await to_be(newest(page), "Verified")


# --- a lie on the way -------------------------------------------------------------------------------------------------


def flip(answer: dict[str, Any]) -> None:
    raw = bytearray(base64.b64decode(answer["signature"]))
    raw[10] ^= 1
    answer["signature"] = base64.b64encode(raw).decode()


def another_key(answer: dict[str, Any]) -> None:
    private, public = keypair()
    answer["public_key"] = base64.b64encode(public).decode()
    answer["signature"] = base64.b64encode(ed25519.sign(private, b"hello")).decode()


def another_message(answer: dict[str, Any]) -> None:
    answer["message_sha256"] = hashlib.sha256(b"other").hexdigest()


def no_signature(answer: dict[str, Any]) -> None:
    answer["signature"] = "<img src=x onerror=alert(1)>"


def unknown_key(answer: dict[str, Any]) -> None:
    answer["key_id"] = "other"


@pytest.mark.parametrize("lie", [flip, another_key, another_message, no_signature, unknown_key])
async def test_a_tampered_answer_is_shown_as_wrong_and_not_offered(context: BrowserContext, pod: Pod, lie: Any) -> None:
    page = await context.new_page()

    def between(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def back(message: str | bytes) -> None:
            answer = json.loads(message)
            lie(answer)
            socket.send(json.dumps(answer))

        server.on_message(back)

    await page.route_web_socket("**/sign/ws", between)
    await page.goto(pod.url + "/sign")
    entry = await ask(page, "hello")
    await to_be(entry, "Wrong signature")
    await expect(entry.locator("[data-part=verdict]")).to_contain_text("Do not use it")
    await expect(entry.get_by_role("button", name=re.compile("Copy|Download"))).to_have_count(0)
    await expect(entry.locator("[data-part=signature]")).to_be_hidden()
    await expect(page.locator("#announce > p", has_text="Wrong signature: hello")).to_have_count(1)


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (
            "SubtleCrypto.prototype.importKey = async () => { throw new DOMException('no', 'NotSupportedError') }",
            "WebCrypto has no Ed25519",
        ),
        (
            "Object.defineProperty(Crypto.prototype, 'subtle', {get: () => undefined})",
            "This page did not come over HTTPS",
        ),
    ],
)
async def test_a_browser_that_cannot_verify_says_so_plainly(
    context: BrowserContext, pod: Pod, without: str, words: str
) -> None:
    page = await context.new_page()
    await page.add_init_script(without)
    await page.goto(pod.url + "/sign")
    entry = await ask(page, "hello")
    await to_be(entry, "Not verified here")
    await expect(entry.locator("[data-part=verdict]")).to_contain_text(words)
    await expect(entry.locator("[data-part=openssl]")).to_be_visible()
    await expect(entry.get_by_role("button", name="Copy base64")).to_be_visible()


# --- the same by hand -------------------------------------------------------------------------------------------------


async def in_a_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # In a thread: the pod that curl asks runs on this loop.
    return await asyncio.to_thread(
        subprocess.run, ["sh", "-euc", command], cwd=folder, capture_output=True, text=True, timeout=20, check=False
    )


async def test_the_commands_for_a_text_do_what_they_say(page: Page, shared_world: World, tmp_path: Path) -> None:
    texts = (
        "hello",
        'it\'s "quoted" $HOME `id` \\ %s !',
        "-n -- ü\u2603",
        "two\nlines\n",
        "nul\0 \x1b[31m",
        "x" * 5000,
    )
    for number, text in enumerate(texts):
        folder = tmp_path / str(number)
        folder.mkdir()
        await the_commands_work(page, shared_world, folder, await ask(page, text), text.encode())


@pytest.mark.parametrize("name", ["plain.txt", "-rf 'it's'; $(id).txt"])
async def test_the_commands_for_a_file_do_what_they_say(
    page: Page, shared_world: World, tmp_path: Path, name: str
) -> None:
    content = bytes(range(256)) * 256
    (tmp_path / name).write_bytes(content)
    await choose(page, {"name": name, "mimeType": "x", "buffer": content})
    await page.get_by_role("button", name="Sign", exact=True).click()
    await the_commands_work(page, shared_world, tmp_path, newest(page), content)


async def the_commands_work(page: Page, world: World, folder: Path, entry: Any, message: bytes) -> None:
    await to_be(entry, "Verified")
    await entry.get_by_text("The same with curl and openssl").click()
    save = entry.get_by_role("button", name="save the message")
    if await save.is_visible():
        async with page.expect_download() as saving:
            await save.click()
        await (await saving.value).save_as(folder / "message.bin")
    await entry.get_by_role("button", name="Copy the curl command").click()
    await expect(entry.get_by_role("button", name="Copy the curl command")).to_have_text("Copied")
    answer = await in_a_shell(await page.evaluate("navigator.clipboard.readText()"), folder)
    assert answer.returncode == 0, answer.stderr
    signature = base64.b64decode(json.loads(answer.stdout)["signature"])
    assert ed25519.verify(world.trust.group_pub, message, signature)
    await entry.get_by_role("button", name="Copy the openssl commands").click()
    await expect(entry.get_by_role("button", name="Copy the openssl commands")).to_have_text("Copied")
    check = await page.evaluate("navigator.clipboard.readText()")
    done = await in_a_shell(check, folder)
    assert (done.returncode, done.stdout.strip()) == (0, "Signature Verified Successfully"), done.stderr
    # It can fail: the same commands with another message, or another signature.
    shown = await entry.locator("[data-part=signature]").inner_text()
    other = base64.b64encode(bytes(64)).decode()
    assert (await in_a_shell(check.replace(shown, other), folder)).returncode != 0


async def test_of_an_empty_message_it_is_said_that_openssl_cannot_check_it(page: Page, shared_world: World) -> None:
    entry = await ask(page, "")
    await to_be(entry, "Verified")
    await entry.get_by_text("The same with curl and openssl").click()
    await expect(entry.get_by_text("The openssl command reads no empty message")).to_be_visible()
    await expect(entry.get_by_role("button", name="Copy the openssl commands")).to_be_hidden()
    await expect(entry.get_by_role("button", name="save the message")).to_be_hidden()
    await entry.get_by_role("button", name="Copy the curl command").click()
    await expect(entry.get_by_role("button", name="Copy the curl command")).to_have_text("Copied")
    answer = await in_a_shell(await page.evaluate("navigator.clipboard.readText()"), Path("/"))
    signature = base64.b64decode(json.loads(answer.stdout)["signature"])
    assert ed25519.verify(shared_world.trust.group_pub, b"", signature)


async def test_two_tabs_know_only_their_own(context: BrowserContext, pod: Pod, shared_world: World) -> None:
    first, second = await visit(context, pod.url), await visit(context, pod.url)
    one, two = await ask(first, "of the first"), await ask(second, "of the second")
    await to_be(one, "Verified")
    await to_be(two, "Verified")
    await expect(first.locator("details.entry")).to_have_count(1)
    await expect(second.locator("details.entry")).to_have_count(1)
    await expect(one.locator("[data-part=title]")).to_have_text("of the first")
    assert len(asked(shared_world, b"of the first")) == len(asked(shared_world, b"of the second")) == 1
    await first.close()
    await to_be(await ask(second, "once more"), "Verified")


async def test_nothing_is_asked_of_anybody_else(context: BrowserContext, pod: Pod) -> None:
    page = await context.new_page()
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.on("websocket", lambda socket: seen.append(socket.url))
    await page.goto(pod.url + "/sign")
    await to_be(await ask(page, "a"), "Verified")
    host = pod.url.removeprefix("http://")
    assert len(seen) >= 8
    assert [url for url in seen if not url.startswith((f"http://{host}/", f"ws://{host}/", "data:"))] == []
