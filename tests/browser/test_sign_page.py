"""The page /sign in a real browser: what it signs, what it believes, and what it says when something goes wrong."""

import pytest
from playwright.async_api import Page, expect

from tests.rest_api.world import World

pytestmark = pytest.mark.anyio


async def test_a_text_is_signed_and_verified_by_the_browser(page: Page, shared_world: World) -> None:
    await page.get_by_label("Message").fill("grüße")
    await page.get_by_role("button", name="Sign", exact=True).click()
    entry = page.locator("details.entry")
    await expect(entry.locator("[data-part=state]")).to_have_text("Verified")
