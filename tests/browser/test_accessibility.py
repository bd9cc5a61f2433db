"""/sign for everybody: by keyboard alone, in the dark, on a small phone, with little motion, without JavaScript."""

from typing import Any, Literal

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.steps import EXAMPLE_FILE, ask, choose, newest, to_be, visit
from tests.rest_api.world import Pod

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

# WCAG 2.2, 1.4.3: the ratio of each text that is seen to the ground it stands on; half-transparent grounds are mixed.
CONTRASTS = """() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length === 3 ? [...n, 1] : n };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const light = (c) => { const v = c / 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 };
  const luminance = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
  const ground = (node) => {
    const layers = [];
    for (let each = node; each; each = each.parentElement) {
      layers.unshift(parse(getComputedStyle(each).backgroundColor));
    }
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest('.visually-hidden, .skip')) continue;
    const below = ground(node);
    const [a, b] = [luminance(over(parse(getComputedStyle(node).color), below)), luminance(below)];
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""

STICKING_OUT = """[...document.querySelectorAll('.route')].flatMap((section) =>
  [...section.querySelectorAll('*:not(pre *)')].filter(
    (part) => part.getBoundingClientRect().right > section.getBoundingClientRect().right + 0.5
  ).map((part) => part.outerHTML))"""
"""Parts of the documentation that are wider than their section; a long command scrolls within its own box."""

UNNAMED = """() => [...document.querySelectorAll('button, a, input, select, textarea, summary')]
  .filter((node) => node.checkVisibility())
  .filter((node) => ![node.getAttribute('aria-label'), node.labels?.[0]?.textContent, node.textContent].join('').trim())
  .map((node) => node.outerHTML)"""

FOCUS = """() => {
  const node = document.activeElement;
  const shown = [node, node.nextElementSibling, node.parentElement].some((each) => {
    const style = each && getComputedStyle(each);
    return style && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
  });
  const name = node.getAttribute('aria-label') || node.id || node.value || node.textContent.trim().slice(0, 30);
  return [`${node.tagName.toLowerCase()} ${name}`, shown];
}"""


async def a_full_page(page: Page) -> None:
    """A signature with its commands open, a refused file, an alert."""
    await to_be(await ask(page, "Release 1.0 " + "x" * 200), "Verified")
    await newest(page).get_by_text("The same with curl and openssl").click()
    await choose(page, EXAMPLE_FILE, {"name": "l" * 90 + ".tar.gz", "mimeType": "x", "buffer": bytes(70_000)})
    await expect(page.locator("#replicas > li")).to_have_count(3)


async def test_everything_is_reached_and_done_by_keyboard_with_the_focus_in_sight(page: Page) -> None:
    press = page.keyboard.press
    await expect(page.get_by_label("Message")).to_be_focused()
    await page.keyboard.type("typed")
    await press("Control+Enter")
    await to_be(newest(page), "Verified")
    # Focus stays where it was: the next message can be typed at once.
    await expect(page.get_by_label("Message")).to_be_focused()
    await page.get_by_role("link", name="Skip to the content").focus()
    reached: list[str] = []
    for _ in range(40):
        name, shown = await page.evaluate(FOCUS)
        assert shown, f"the focus on {name} cannot be seen"
        if reached and name == reached[0]:
            break
        reached.append(name)
        await press("Tab")
        if await page.evaluate("document.activeElement === document.body"):
            break
    for needed in (
        "a Skip",
        "textarea text",
        "button sign",
        "input text",
        "summary",
        "button Copy base64",
        "button Dow",
    ):
        assert any(name.startswith(needed) for name in reached), (needed, reached)

    await page.get_by_role("radio", name="Text").focus()
    await press("ArrowRight")
    await expect(page.locator("#files")).to_be_visible()
    await press("Tab")
    await expect(page.locator("#files")).to_be_focused()

    await newest(page).locator("summary").first.focus()
    await press("Enter")
    await expect(newest(page).get_by_role("button", name="Copy hex")).to_be_hidden()
    await press("Enter")
    await newest(page).get_by_role("button", name="Copy hex").focus()
    await press("Enter")
    await expect(newest(page).get_by_role("button", name="Copied")).to_be_focused()


async def test_a_held_key_does_not_sign_again_and_again(page: Page) -> None:
    await page.get_by_label("Message").fill("held")
    await page.keyboard.down("Control")
    for _ in range(5):
        await page.keyboard.down("Enter")
    await page.keyboard.up("Enter")
    await page.keyboard.up("Control")
    await to_be(newest(page), "Verified")
    await expect(page.locator("details.entry")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_has_contrast_in_both_schemes(page: Page, scheme: Literal["light", "dark"]) -> None:
    await page.emulate_media(color_scheme=scheme)
    await a_full_page(page)
    found: list[tuple[float, str]] = await page.evaluate(CONTRASTS)
    assert len(found) > 40
    assert [each for each in found if each[0] < 4.5] == []
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 3 * 64) == (scheme == "dark")


@pytest.mark.parametrize("width", [360, 768, 1280])
async def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 780})
    await a_full_page(page)
    assert await page.evaluate("document.scrollingElement.scrollWidth") <= width
    await page.goto(page.url.replace("/sign", "/docs"))
    assert await page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert await page.evaluate(STICKING_OUT) == []


async def test_everything_has_a_name_and_what_happens_is_said(page: Page) -> None:
    await a_full_page(page)
    assert await page.evaluate(UNNAMED) == []
    await expect(page.locator("#announce > p", has_text="1 file ready to sign, 1 refused")).to_have_count(1)
    await page.get_by_role("button", name="Sign", exact=True).click()
    await expect(page.locator("#announce > p", has_text="Verified: contract.txt")).to_have_count(1)
    assert await page.locator("h1").count() == 1
    for landmark in ("banner", "main", "navigation", "complementary"):
        await expect(page.get_by_role(landmark)).to_have_count(1)


async def test_who_wants_little_motion_gets_none(page: Page) -> None:
    await page.emulate_media(reduced_motion="reduce")
    await to_be(await ask(page, "a"), "Verified")
    moving = "() => document.getAnimations().filter((each) => each.playState === 'running').length"
    assert await page.evaluate(moving) == 0


async def test_without_javascript_the_plain_form_is_all_there_is(browser: Browser, pod: Pod) -> None:
    context: Any = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(pod.url + "/sign")
    for hidden in ("#cluster", "#entries", "#connection", "#files", "#measure", "[role=radio]"):
        await expect(page.locator(hidden).locator("visible=true")).to_have_count(0)
    await expect(page.get_by_text("A browser sends each line end as CR LF")).to_be_visible()
    await page.get_by_label("Message").fill("no script")
    await page.get_by_role("button", name="Sign").click()
    await expect(page.get_by_role("status").locator("output")).to_contain_text("ok: ")
    await expect(page.get_by_label("Message")).to_have_value("no script")
    await page.get_by_label("Message").fill("signer-flow/internal/v1")
    await page.get_by_role("button", name="Sign").click()
    await expect(page.get_by_role("status").locator("output")).to_contain_text("ok: ")
    await context.close()


async def test_the_answer_of_the_plain_form_stays_when_scripts_run(context: BrowserContext, pod: Pod) -> None:
    page = await visit(context, pod.url)
    await page.evaluate("() => { find = document.querySelector('form'); find.text.value = 'a'; find.submit() }")
    await expect(page.locator("output")).to_contain_text("ok: ")
    await expect(page.locator("#connection-text")).to_have_text("Connected")
    await to_be(await ask(page, "b"), "Verified")
