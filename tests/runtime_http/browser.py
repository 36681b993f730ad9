"""A real Chromium without a window, for the tests that look at pages.

The driver's blocking interface is used in a thread of its own, as it may not change threads; the
tree runs in the loop of the test. Every look ends with the question whether the page has
complained on the console, or asked any other host.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from playwright.sync_api import Browser, Page, expect, sync_playwright

if TYPE_CHECKING:
    from .conftest import Site

TOKEN = "t0ken-of-the-test"  # noqa: S105 - of this test's server only
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
#: The marks of a module whose tests look at pages: they share one browser.
IN_A_BROWSER = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]
#: Where the screenshots of the latest run are kept.
PICTURES = Path(__file__).parents[2] / ".pictures"
#: Long enough for any machine: who comes to its end has found a fault.
PATIENCE_MS = 60_000


class Visitor:
    """Looks at pages with the browser, in the thread that this lives in."""

    def __init__(self, thread: ThreadPoolExecutor, browser: Browser) -> None:
        self._thread, self._browser = thread, browser

    async def __call__(
        self,
        site: Site,
        look: Callable[[Page], None],
        *,
        path: str = "/",
        complaints: str = "^$",
        **options: Any,
    ) -> None:
        """Open the page of *site* and let *look* look at it.

        *complaints* is what may be found on the console; *options* are those of the window.
        """
        visit = partial(self._visit, site.address, look, path, re.compile(complaints), options)
        done = self._thread.submit(visit)
        await trio.to_thread.run_sync(done.result, abandon_on_cancel=True)

    def _visit(
        self,
        address: str,
        look: Callable[[Page], None],
        path: str,
        complaints: re.Pattern[str],
        options: dict[str, Any],
    ) -> None:
        found: list[str] = []
        asked: list[str] = []
        options.setdefault("viewport", {"width": 1400, "height": 1000})
        with self._browser.new_context(**options) as context:
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            page.on("console", lambda message: found.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: found.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address + path)
            try:
                look(page)
            except BaseException as error:
                error.add_note(f"on the console: {found}")
                page.screenshot(path=ensured(PICTURES) / "failed.png")
                raise
            asked.append(page.url)
        assert [each for each in found if not complaints.search(each)] == []
        assert [each for each in asked if not each.startswith(address + "/")] == []
        assert [each for each in asked if TOKEN in each] == []


@contextmanager
def open_browser() -> Iterator[Visitor]:
    """Run a browser for as long as the block."""
    expect.set_options(timeout=PATIENCE_MS)
    # Some containers do not let Chromium build its own sandbox, nor use much of /dev/shm.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    with ThreadPoolExecutor(max_workers=1) as thread:
        driver = thread.submit(lambda: sync_playwright().start()).result()
        launch = partial(
            driver.chromium.launch,
            executable_path=CHROMIUM,
            args=arguments,
            timeout=2 * PATIENCE_MS,
        )
        browser = thread.submit(launch).result()
        yield Visitor(thread, browser)
        thread.submit(browser.close).result()
        thread.submit(driver.stop).result()


def caller() -> Callable[..., Any]:
    """Return what calls a coroutine function in the loop of this test from the browser's thread."""
    token = trio.lowlevel.current_trio_token()

    def call(work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return trio.from_thread.run(work, *arguments, trio_token=token)

    return call


def give_token(page: Page, token: str) -> None:
    expect(page.locator("#token-dialog")).to_be_visible()
    page.locator("#token").fill(token)
    page.locator("#token").press("Enter")


#: The contrast of all texts that are shown, by the formula of WCAG 2: what is below 4.5.
CONTRAST = """() => {
  const parse = (text) => {
    const [kind, rest] = text.split("(");
    const parts = rest.split(")")[0].split(/[ ,/]+/).filter(Boolean);
    const scale = kind === "color" ? 255 : 1;
    const [r, g, b, a] = (kind === "color" ? parts.slice(1) : parts).map(Number);
    return [r * scale, g * scale, b * scale, a ?? 1];
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const ground = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.push(parse(getComputedStyle(each).backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [more, less] = [light(a), light(b)].sort((x, y) => y - x);
    return (more + 0.05) / (less + 0.05);
  };
  const found = [];
  let looked = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    if (!own || element.disabled || !element.checkVisibility()) continue;
    if (element.closest("option, title, .unseen, .skip")) continue;
    const node = element.closest(".node");
    const svg = element.ownerSVGElement !== null && element.ownerSVGElement !== undefined;
    const style = getComputedStyle(element);
    const below = node
      ? parse(getComputedStyle(node.querySelector("rect")).fill)
      : ground(svg ? element.closest("#graph") : element);
    const colour = over(parse(svg ? style.fill : style.color), below);
    looked += 1;
    const reached = ratio(colour, below.slice(0, 3));
    const name = `${element.tagName}.${element.getAttribute("class")} ${element.textContent}`;
    if (reached < 4.5) found.push(`${name}: ${reached.toFixed(2)}`);
  }
  return [looked, found];
}"""


def ensured(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def save(page: Page, name: str) -> Path:
    path = ensured(PICTURES) / f"{name}.png"
    page.screenshot(path=path)
    return path
