"""What a person does on the page, in words that several tests share."""

from collections.abc import Mapping

from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.rest_api.world import World

EXAMPLE_FILE = {"name": "contract.txt", "mimeType": "text/plain", "buffer": b"the contract\n"}


async def visit(context: BrowserContext, url: str) -> Page:
    """A new tab with the page, connected."""
    opened = await context.new_page()
    await opened.goto(url + "/sign")
    await connected(opened)
    return opened


async def connected(page: Page) -> None:
    await expect(page.locator("#connection-text")).to_have_text("Connected")


async def ask(page: Page, text: str) -> Locator:
    """Give a text and press Sign; return the entry, which may still wait for its answer."""
    before = await page.locator("details.entry").count()
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Sign", exact=True).click()
    await expect(page.locator("details.entry")).to_have_count(before + 1)
    return newest(page)


def newest(page: Page) -> Locator:
    return page.locator("details.entry").first


async def to_be(entry: Locator, state: str) -> None:
    """Wait until the entry says so."""
    await expect(entry.locator("[data-part=state]")).to_have_text(state)


async def choose(page: Page, *files: Mapping[str, object]) -> None:
    """Choose files, and wait until each is read."""
    await page.get_by_role("radio", name="Files").check()
    before = await page.locator("#chosen > li").count()
    await page.locator("#files").set_input_files(list(files))  # type: ignore[arg-type]
    await expect(page.locator("#chosen > li")).to_have_count(before + len(files))


def asked(world: World, message: bytes) -> set[str]:
    """Ids of the requests for that message that ever reached a signer: one per time it was asked for."""
    return {item.request_id for _, item in world.committee.asked_items() if item.message == message}
