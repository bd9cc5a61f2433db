"""The connection of /sign: lost, found again, nothing lost or doubled without a word; and the panel of the cluster."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Dialog, Page, Route, WebSocketRoute, expect

from common.ids import Index
from rest_api.token_file import Token, digest, entry, new_token
from tests.brokers import until
from tests.browser.conftest import Wire
from tests.browser.steps import ask, asked, connected, newest, to_be, visit
from tests.rest_api.world import Asked, Pod, World, running_pod

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_lost_connection_is_shown_found_again_and_nothing_is_sent_twice(
    context: BrowserContext, wire: Wire, shared_world: World, pod: Pod
) -> None:
    page = await visit(context, wire.url)
    held: list[Asked] = []
    shared_world.committee.all_do(held.append)
    under_way = await ask(page, "under way")
    await to_be(under_way, "Being signed")
    await until(lambda: bool(held), "it reached a signer")

    await wire.cut()
    await to_be(newest(page), "Outcome unknown")
    await expect(newest(page)).to_contain_text("nothing is sent again by itself")
    await expect(page.locator("#connection-text")).to_have_text(re.compile("Connection lost. Trying"))
    await expect(page.locator("#announce > p", has_text="Connection lost")).to_have_count(1)
    await to_be(await ask(page, "written meanwhile"), "Waits for a connection")
    await to_be(await ask(page, "taken back"), "Waits for a connection")
    await newest(page).get_by_role("button", name="Do not send").click()
    await expect(page.locator("details.entry")).to_have_count(2)

    shared_world.committee.reset()
    await wire.mend()
    await connected(page)
    await to_be(newest(page), "Verified")
    await expect(newest(page).locator("[data-part=title]")).to_have_text("written meanwhile")
    await to_be(page.locator("details.entry").nth(1), "Outcome unknown")
    assert len(asked(shared_world, b"written meanwhile")) == 1
    assert asked(shared_world, b"under way") <= {held[0].request.items[0].request_id}
    assert asked(shared_world, b"taken back") == set()

    await page.locator("details.entry").nth(1).locator("summary").first.click()
    await page.get_by_role("button", name="Ask again").click()
    await expect(page.locator("details.entry")).to_have_count(3)
    await to_be(newest(page), "Verified")
    await expect(newest(page).locator("[data-part=title]")).to_have_text("under way")


async def test_who_leaves_while_an_answer_is_owed_is_asked_whether_he_means_it(page: Page, shared_world: World) -> None:
    asked_him: list[str] = []

    async def stay(dialog: Dialog) -> None:
        asked_him.append(dialog.type)
        await dialog.dismiss()

    page.on("dialog", stay)
    held: list[Asked] = []
    shared_world.committee.all_do(held.append)
    entry = await ask(page, "under way")
    await to_be(entry, "Being signed")
    await until(lambda: bool(held), "it reached a signer")
    await page.evaluate("location.reload()")
    await until(lambda: asked_him == ["beforeunload"], "the question")
    held[0].seat.sign(held[0])
    await to_be(entry, "Verified")
    shared_world.committee.reset()
    await page.reload()
    await connected(page)
    assert asked_him == ["beforeunload"]


async def test_a_pod_that_goes_and_comes_back_is_found_again(context: BrowserContext, own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        page = await visit(context, pod.url)
        await to_be(await ask(page, "before"), "Verified")
    port = int(pod.url.rpartition(":")[2])
    await expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
    async with running_pod(own_world.settings(), port=port):
        await connected(page)
        await to_be(await ask(page, "after"), "Verified")


async def test_what_a_pod_did_not_take_before_it_went_is_sent_again(
    context: BrowserContext, pod: Pod, shared_world: World
) -> None:
    page = await context.new_page()
    gone: list[str | bytes] = []

    async def between(socket: WebSocketRoute) -> None:
        if gone:
            socket.connect_to_server()
            return

        async def goes(message: str | bytes) -> None:
            gone.append(message)
            if len(gone) == 2:
                await socket.close(code=1012, reason="this pod is going away")

        socket.on_message(goes)

    await page.route_web_socket("**/sign/ws", between)
    await page.goto(pod.url + "/sign")
    await ask(page, "first")
    await ask(page, "second")
    for number, text in enumerate(("second", "first")):
        await to_be(page.locator("details.entry").nth(number), "Verified")
        assert len(asked(shared_world, text.encode())) == 1
    assert len(gone) == 2


async def test_where_no_websocket_gets_through_the_plain_form_is_offered(context: BrowserContext, pod: Pod) -> None:
    page = await context.new_page()

    async def refuse(socket: WebSocketRoute) -> None:
        await socket.close(code=1011)

    await page.route_web_socket("**/sign/ws", refuse)
    await page.goto(pod.url + "/sign")
    await page.get_by_role("link", name="Plain form").click()
    await page.get_by_label("Message").fill("plain")
    await page.get_by_role("button", name="Sign").click()
    await expect(page.locator("output")).to_have_text(re.compile("^ok: "))


async def test_the_panel_follows_the_cluster(context: BrowserContext, own_world: World) -> None:
    async with running_pod(own_world.settings()) as pod:
        page = await visit(context, pod.url)
        panel = page.locator("#cluster")
        await expect(panel.get_by_text("Live", exact=True)).to_be_visible()
        await expect(panel).to_contain_text("Quorum with 1 to spare")
        await expect(panel).to_contain_text("3 of 3 replicas are up with a share; 2 make a signature")
        await expect(panel.locator("#cluster-epoch")).to_have_text("1")
        await expect(panel.locator("#cluster-ceremony")).to_have_text("none running")
        await expect(panel.locator("#replicas > li")).to_have_count(3)
        own_world.committee.seats[Index(1)].skew_ms = -1_500
        await expect(panel.locator("#replicas > li").nth(0)).to_contain_text("clock 1.5 s behind")
        await expect(panel.locator("#replicas > li").nth(1)).not_to_contain_text("clock")
        own_world.committee.seats[Index(3)].beating = False
        await expect(panel).to_contain_text("Quorum with none to spare")
        await expect(panel.locator("#replicas > li").nth(2)).to_contain_text("silent")
        await expect(page.locator("#announce > p", has_text="Quorum with none to spare")).to_have_count(1)
        own_world.committee.seats[Index(2)].beating = False
        await expect(panel).to_contain_text("Quorum lost")
        own_world.committee.reset()
        await expect(panel).to_contain_text("Quorum with 1 to spare")
    await expect(panel).to_contain_text("No answer: as of")


async def test_a_ceremony_is_told_in_words_and_its_epoch_seen_at_once(context: BrowserContext, pod: Pod) -> None:
    page = await context.new_page()

    ceremony = {"kind": "reshare", "phase": "deal", "attempt": 2, "awaited": [1, 3]}
    shown: dict[str, Any] = {"epoch": 1, "ceremony": None, "last_refresh": None, "next_refresh": None}

    async def during(route: Route) -> None:
        answer = await route.fetch()
        body: dict[str, Any] = await answer.json()
        body["keys"][0] |= shown
        await route.fulfill(response=answer, json=body)

    def moment(seconds: int) -> str:
        return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()

    await page.route("**/v1/cluster", during)
    await page.goto(pod.url + "/sign")
    await expect(page.locator("#cluster-refresh")).to_have_text("unknown")
    shown |= {"ceremony": ceremony, "last_refresh": moment(-7_200), "next_refresh": moment(-1)}
    await expect(page.locator("#cluster-ceremony")).to_have_text(
        "Share refresh: deal, attempt 2, waits for replica 1, 3"
    )
    await expect(page.locator("#cluster-refresh")).to_have_text("2 h ago, next is due")
    await expect(page.locator("#cluster-epoch")).to_have_text("1")
    shown |= {"epoch": 2, "ceremony": None, "last_refresh": moment(-1), "next_refresh": moment(1_200)}
    await expect(page.locator("#cluster-epoch")).to_have_text("2")
    await expect(page.locator("#cluster-ceremony")).to_have_text("none running")
    await expect(page.locator("#cluster-refresh")).to_have_text(re.compile(r"^\d+ s ago, next in 20 min$"))
    await expect(page.locator("#announce > p", has_text="New shares: epoch 2")).to_have_count(1)


async def test_a_committee_that_changed_since_the_page_was_made_is_shown_as_it_is(
    context: BrowserContext, pod: Pod
) -> None:
    page = await context.new_page()

    async def grown(route: Route) -> None:
        answer = await route.fetch()
        body: dict[str, Any] = await answer.json()
        body["keys"][0] |= {"threshold": 3, "quorum_margin": 1}
        body["replicas"] += [{**body["replicas"][0], "index": index} for index in (4, 5)]
        await route.fulfill(response=answer, json=body)

    await page.route("**/v1/cluster", grown)
    await page.goto(pod.url + "/sign")
    await expect(page.locator("#quorum-detail")).to_have_text(
        "4 of 5 replicas are up with a share; 3 make a signature."
    )
    entry = await ask(page, "to five")
    await to_be(entry, "Verified")
    await expect(entry.locator("[data-part=facts]")).to_contain_text("replicas 1 and 2 of 5")


async def test_a_page_asks_for_the_token_where_the_service_does(
    context: BrowserContext, own_world: World, tmp_path: Path
) -> None:
    token = new_token()
    file = tmp_path / "tokens.toml"
    file.write_text(entry(Token("billing", digest(token))))
    file.chmod(0o600)
    async with running_pod(own_world.settings(tokens_file=file)) as pod:
        page = await visit(context, pod.url)
        refused = await ask(page, "nobody asks")
        await to_be(refused, "Not signed")
        await expect(refused).to_contain_text("type yours above, and ask again")
        await page.get_by_label("Token").fill("sft_wrong")
        await page.get_by_label("Token").blur()
        await expect(page.locator("#caller")).to_have_text("This token is not known to the service.")
        await expect(page.locator("#caller")).to_have_css("color", "rgb(161, 42, 30)")
        await expect(page.get_by_label("Token")).to_have_attribute("aria-invalid", "true")
        await page.get_by_label("Token").fill(token)
        await page.get_by_label("Token").blur()
        await expect(page.locator("#caller")).to_have_text("Signing as billing.")
        await to_be(await ask(page, "billing asks"), "Verified")
        await expect(newest(page).locator("[data-part=curl]")).to_contain_text('-H "Authorization: Bearer $TOKEN"')
        assert token not in await page.content()
        # Within the field, too, these keys sign, with what stands there.
        again = await visit(context, pod.url)
        await again.get_by_label("Message").fill("from the field")
        await again.get_by_label("Token").fill(token)
        await again.get_by_label("Token").press("Control+Enter")
        await to_be(newest(again), "Verified")
    principals = {item.principal for _, item in own_world.committee.asked_items()}
    assert principals == {"billing"}
