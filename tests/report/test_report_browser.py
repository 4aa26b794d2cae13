"""The page in a real browser: light and dark, on a desk and on a phone."""

import shutil

import pytest
from report_examples import EXAMPLES, four_tasks, many_tasks

from perdure.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"])), None
)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the PATH")]

# The contrast of the text of every measured heat-map cell, from the colours the browser computed.
CONTRASTS = """() => {
  const luminance = (css) => {
    const [r, g, b] = css.match(/[\\d.]+/g).slice(0, 3).map(Number)
      .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll(".heat td[class^=v] > *")].map((text) => {
    const a = luminance(getComputedStyle(text).color);
    const b = luminance(getComputedStyle(text.parentElement).backgroundColor);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""

# Cells whose text is cut off or too small; what is hidden on purpose (for screen readers) does not count.
UNREADABLE = """() => [...document.querySelectorAll("table th, table td")].filter((cell) =>
  cell.textContent && (cell.scrollWidth > cell.clientWidth + 1 || parseFloat(getComputedStyle(cell).fontSize) < 11))
  .map((cell) => cell.textContent)"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """Open an example; every request beyond the file itself and every console message is a failure."""
    contexts = []

    def opened(data, width=1280, scheme="light", script=True):
        path = tmp_path / "report.html"
        write_report(data, path)
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
        )
        page = context.new_page()
        noise = []
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on(
            "request",
            lambda request: noise.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        page.goto(path.as_uri())
        contexts.append((context, noise))
        return page

    yield opened
    for context, noise in contexts:
        context.close()
        assert noise == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_fits_reads_and_is_silent(show, name, scheme):
    page = show(EXAMPLES[name](), scheme=scheme)
    for width in (1280, 700, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(UNREADABLE) == []
    contrasts = page.evaluate(CONTRASTS)
    assert bool(contrasts) == (name != "empty")
    assert min(contrasts, default=21) >= 4.5


def test_light_and_dark_are_different_pages(show):
    ask = "getComputedStyle(document.body).backgroundColor"
    assert show(four_tasks(), scheme="light").evaluate(ask) != show(four_tasks(), scheme="dark").evaluate(ask)


def test_wide_tables_scroll_inside_their_own_container(show):
    page = show(EXAMPLES["fifteen"](), 360)
    box = page.locator("#matrix .scroll")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    assert box.evaluate("box => { box.scrollLeft = 200; return box.scrollLeft }") == 200
    stage = page.locator("#matrix tbody th").first
    assert stage.evaluate("th => th.getBoundingClientRect().left") >= 0


def test_a_touched_cell_shows_its_interval(show):
    page = show(EXAMPLES["fifteen"](), 360)
    cell = page.locator("#matrix td.just").first
    cell.scroll_into_view_if_needed()
    cell.hover()
    tip = page.locator(".tip")
    assert "95% Wilson interval" in tip.inner_text()
    left, right = tip.evaluate("tip => { const at = tip.getBoundingClientRect(); return [at.left, at.right] }")
    assert left >= 0
    assert right <= 360


def test_nothing_needs_the_script(show):
    page = show(four_tasks(), script=False)
    assert page.locator("#matrix td.just").first.get_attribute("title").startswith("broadband, stage 1")
    page.locator(".gates details").nth(1).locator("summary").click()
    assert page.locator(".gates details").nth(1).locator("table").is_visible()


def test_print_is_light_and_shows_every_verdict(show):
    page = show(four_tasks(), scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.locator(".gates table").nth(1).is_visible()


def test_a_page_of_52_tasks_is_below_5000_pixels_and_the_rest_opens(show):
    page = show(many_tasks(), 1280)
    assert page.evaluate("document.documentElement.scrollHeight") < 5000
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    whole = page.locator("#matrix details.rest")
    assert not whole.locator("table").is_visible()
    whole.locator("summary").click()
    assert whole.locator("tbody tr").count() == 53
    assert whole.locator("tbody tr").last.locator("td").count() == 52
    assert page.evaluate(UNREADABLE) == []
