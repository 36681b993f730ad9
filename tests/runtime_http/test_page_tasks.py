"""Invocations on the page, in a real Chromium that looks at a real tree with tasks."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from playwright.sync_api import Page, expect

from runtime import Application
from runtime_http import Client

from .browser import CONTRAST, IN_A_BROWSER, Visitor, caller, give_token, save
from .conftest import TOKEN, Serve, Site, own_address

pytestmark = IN_A_BROWSER
LIST = "/ui/#/invocations"
HOSTILE = "<img src=x onerror=alert(1)></pre><script>alert(2)</script>\u202e\x00&amp;"


@dataclass
class Shop:
    """An application with tasks, some invocations of which have ended, and one that runs."""

    site: Site
    client: Client
    gate: trio.Event
    done: str
    failed: str
    parent: str
    running: str


OpenShop = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture
def open_shop(serve: Serve) -> OpenShop:
    @asynccontextmanager
    async def open_one(**settings: Any) -> AsyncGenerator[Shop]:
        gate = trio.Event()

        def define(application: Application) -> None:
            @application.task
            async def echo(words: str) -> str:
                """Return the words."""
                return words

            @application.task
            async def fail(words: str) -> None:
                raise RuntimeError(words)

            @application.task
            async def order(words: str) -> str:
                child = await echo.submit(words)
                return await child.result()

            @application.task
            async def wait() -> str:
                await gate.wait()
                return "waited"

        async with (
            serve(set_up=define, **settings) as site,
            Client(site.address, TOKEN) as client,
        ):
            made = [
                (await client.submit(name, {"words": words})).invocation_id
                for name, words in (("echo", HOSTILE), ("fail", HOSTILE), ("order", "two"))
            ]
            for each in made:
                await site.application.state_backend.wait_over(each)
            running = (await client.submit("wait")).invocation_id
            try:
                yield Shop(site, client, gate, *made, running)
            finally:
                gate.set()  # a stop lets what runs end

    return open_one


def row(page: Page, invocation_id: str) -> Any:
    return page.locator(f"#work-list tr[data-name='{invocation_id}']")


async def test_invocations_are_listed_followed_and_narrowed(
    open_shop: OpenShop, visit: Visitor
) -> None:
    async with open_shop() as shop:
        call = caller()

        async def let_go() -> None:
            shop.gate.set()

        async def fail_once() -> None:
            await shop.client.submit("fail", {"words": "unseen"})

        def look(page: Page) -> None:
            page.get_by_role("link", name="Invocations").click()
            expect(page.locator("#main")).to_be_hidden()
            shown = page.locator("#work-list tbody tr")
            expect(shown).to_have_count(5)
            expect(shown.first).to_contain_text("wait")  # the newest
            expect(row(page, shop.running).locator(".badge")).to_have_text("running")
            expect(page.locator("[data-status=success]")).to_have_text("3 success")
            call(let_go)
            expect(row(page, shop.running).locator(".badge")).to_have_text("success")
            page.locator("[data-status=failed]").click()
            expect(shown).to_have_count(1)
            expect(row(page, shop.failed).locator(".badge")).to_have_text("failed")
            page.locator("[data-status=failed]").click()
            expect(shown).to_have_count(5)
            name = page.locator("#work-task option", has_text="echo").get_attribute("value")
            page.locator("#work-task").select_option(name)
            expect(shown).to_have_count(2)
            page.locator("#work-task").select_option("")
            expect(shown).to_have_count(5)
            # with the keys
            page.locator("#work-list button[tabindex='0']").focus()
            page.keyboard.press("End")
            page.keyboard.press("Enter")
            expect(page.locator("#work-detail-title")).to_contain_text("echo")
            assert page.url.endswith(f"#/invocations/{shop.done}")
            page.keyboard.press("Escape")
            expect(page.locator("#work-detail")).to_be_hidden()
            expect(row(page, shop.done).locator("button")).to_be_focused()
            page.get_by_role("link", name="Units", exact=True).click()
            expect(page.locator("#units tbody tr").first).to_be_visible()
            # What happens then is heard, and nothing is read for a list that nobody looks at.
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            call(fail_once)
            expect(page.locator("#events")).to_contain_text("RuntimeError: unseen")
            assert [each for each in asked if "/invocations" in each] == []

        await visit(shop.site, look)


async def test_one_is_shown_with_all_that_came_of_it(open_shop: OpenShop, visit: Visitor) -> None:
    async with open_shop() as shop:

        def look(page: Page) -> None:
            error = page.locator("#work-error")
            expect(error).to_contain_text("raise RuntimeError(words)")
            assert (error.text_content() or "").startswith("RuntimeError: <img src=x onerror=")
            badges = page.locator("#work-history .badge")
            expect(badges).to_have_text(["registered", "pending", "running", "failed"])
            save(page, "invocation")
            page.goto(f"{shop.site.address}{LIST}/{shop.done}")
            outcome = page.locator("#work-outcome")
            expect(outcome).to_contain_text("<script>")
            assert json.loads(outcome.text_content() or "") == HOSTILE
            assert json.loads(page.locator("#work-arguments").text_content() or "") == {
                "words": HOSTILE
            }
            assert page.locator("#work img, #work script").count() == 0
            page.goto(f"{shop.site.address}{LIST}/{shop.parent}")
            child = page.locator("#work-family a")
            expect(child).to_have_count(1)
            child.click()
            expect(page.locator("#work-family li")).to_contain_text("submitted by")
            page.locator("#work-family a").click()
            expect(page.locator("#work-detail-title")).to_contain_text("order")
            page.goto(f"{shop.site.address}{LIST}/nothing")
            expect(page.locator("#work-result")).to_contain_text("nothing")

        path = f"{LIST}/{shop.failed}"
        await visit(shop.site, look, path=path, complaints="404")


async def test_cancel_retry_and_submit_take_the_token(open_shop: OpenShop, visit: Visitor) -> None:
    async with open_shop() as shop:

        def look(page: Page) -> None:
            detail = page.locator("#work-detail")
            cancel = detail.locator("[data-verb=cancel]")
            retry = detail.locator("[data-verb=retry]")
            result = page.locator("#work-result")
            expect(retry).to_be_disabled()
            cancel.click()
            page.locator("#token-cancel").click()
            expect(result).to_have_text("cancel: not done, as it takes the token")
            cancel.click()
            give_token(page, "not it")
            expect(page.locator("#token-why")).to_have_text("This token was refused.")
            give_token(page, TOKEN)
            expect(result).to_have_text("cancel: done")
            expect(page.locator("#work-status")).to_have_text("killed")
            expect(cancel).to_be_disabled()
            retry.click()  # the same goes on
            expect(page.locator("#work-status")).to_have_text("running")
            row(page, shop.failed).click()
            expect(page.locator("#work-status")).to_have_text("failed")
            retry.click()  # a new one
            expect(page.locator("#work-family li")).to_contain_text("tries again")
            expect(page.locator("#work-status")).to_have_text("failed")
            assert not page.url.endswith(shop.failed)
            page.keyboard.press("Escape")
            name = page.locator("#submit-task option", has_text="echo").get_attribute("value")
            page.locator("#submit-task").select_option(name)
            send = page.get_by_role("button", name="Submit")
            page.locator("#submit-arguments").fill("{words")
            send.click()
            expect(page.locator("#submit-result")).to_contain_text("no JSON")
            page.locator("#submit-arguments").fill('{"word": "x"}')
            send.click()
            expect(page.locator("#submit-result")).to_contain_text("word")
            page.locator("#submit-arguments").fill('{"words": "hello"}')
            send.click()
            expect(page.locator("#work-outcome")).to_have_text('"hello"')

        path = f"{LIST}/{shop.running}"
        await visit(shop.site, look, path=path, complaints="401|422")


async def test_older_ones_come_when_asked_for(open_shop: OpenShop, visit: Visitor) -> None:
    async with open_shop() as shop:
        task = next(each.name for each in await shop.client.tasks() if each.name.endswith("echo"))
        found = shop.site.application.tasks.find(task)
        await found.submit_many([(str(number),) for number in range(60)])
        call = caller()

        async def submit_one() -> None:
            await found.submit("one more")

        def look(page: Page) -> None:
            shown = page.locator("#work-list tbody tr")
            expect(shown).to_have_count(50)
            expect(page.locator("#work-count")).to_have_text("50 newest")
            page.locator("#work-more").click()
            expect(shown).to_have_count(65)
            expect(page.locator("#work-more")).to_be_hidden()
            ids = shown.evaluate_all("rows => rows.map((row) => row.dataset.name)")
            assert ids[-1] == shop.done
            assert len(set(ids)) == 65
            call(submit_one)
            expect(shown).to_have_count(66)  # they stay, and the new one is there
            assert shown.last.get_attribute("data-name") == shop.done

        await visit(shop.site, look, path=LIST)


async def test_what_is_too_long_for_a_page_is_cut_and_all_of_it_can_be_saved(
    open_shop: OpenShop, visit: Visitor
) -> None:
    long = "\U0001f600" * 40_000  # a character that counts as two
    own = own_address()
    async with open_shop(bind=f"{own or '0.0.0.0'}:0") as shop:  # noqa: S104 - reading takes the token there
        ids = [(await shop.client.submit(name, {"words": long})) for name in ("echo", "fail")]
        echoed, failed = [each.invocation_id for each in ids]

        def look(page: Page) -> None:
            give_token(page, TOKEN)
            for each in ("outcome", "arguments"):
                note, shown = page.locator(f"#work-{each}-cut"), page.locator(f"#work-{each}")
                expect(note).to_contain_text("The first 50,000 of 80,0")
                text = shown.text_content() or ""
                assert "\U0001f600" * 24_900 in text
                assert 24_900 < len(text) <= 25_100
                text.encode()  # no half of a character
            path = f"/invocations/{echoed}/result"
            expect(page.locator("#work-outcome-cut")).to_contain_text(f"(GET {path})")
            page.locator("#work-outcome-cut button").focus()
            with page.expect_download() as saving:
                page.keyboard.press("Enter")
            assert saving.value.suggested_filename == f"invocations-{echoed}-result.json"
            saved = json.loads(Path(saving.value.path()).read_text(encoding="utf-8"))
            assert saved["result"] == long
            expect(page.locator("#work-result")).to_have_text("save: done")
            # The button that closes it stays in the corner, whatever the title is.
            head = page.locator("#work-detail .head")
            name = page.locator("#work-detail-title")
            name.evaluate("e => { e.textContent = 'a.very.long.name_of_a_task'.repeat(9); }")
            title, close = (head.locator(each).bounding_box() for each in ("h2", "button"))
            assert close["y"] < title["y"] + 5
            assert close["x"] >= title["x"] + title["width"]
            page.goto(f"{site.address}{LIST}/{failed}")
            expect(page.locator("#work-error-cut")).to_contain_text("The first 50,000 of")
            page.goto(f"{site.address}{LIST}/{shop.done}")
            expect(page.locator("#work-outcome")).to_contain_text("<script>")
            for each in ("outcome", "arguments", "error"):
                expect(page.locator(f"#work-{each}-cut")).to_be_hidden()

        for each in (echoed, failed):
            await shop.site.application.state_backend.wait_over(each)
        site = replace(shop.site, address=f"http://{own or '127.0.0.1'}:{shop.site.port}")
        await visit(
            site, look, path=f"{LIST}/{echoed}", complaints="401|Cross-Origin-Opener-Policy"
        )


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1400)])
async def test_the_list_can_be_read_everywhere(
    open_shop: OpenShop, visit: Visitor, scheme: Any, width: int
) -> None:
    wide = """[...document.querySelectorAll("#work *")].filter((each) => each.checkVisibility()
      && each.getBoundingClientRect().right > document.documentElement.clientWidth)
      .map((each) => each.outerHTML.slice(0, 80))"""

    async with open_shop() as shop:

        def look(page: Page) -> None:
            for invocation_id in (shop.failed, shop.parent):
                expect(row(page, invocation_id)).to_be_visible()
                assert page.evaluate(wide) == []
                assert page.evaluate(CONTRAST)[1] == []
                row(page, invocation_id).click()
                expect(page.locator("#work-history li").first).to_be_visible()
                assert page.evaluate(wide) == []
                assert page.evaluate(CONTRAST)[1] == []
                page.keyboard.press("Escape")
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
            assert len(ids) == len(set(ids))
            for each in page.locator("#work :is(button, input, select, textarea)").all():
                assert each.evaluate("e => e.textContent || e.ariaLabel || e.labels?.length")

        size = {"width": width, "height": 800}
        await visit(shop.site, look, path=LIST, color_scheme=scheme, viewport=size)


async def test_a_tree_without_tasks_says_so(serve: Serve, visit: Visitor) -> None:
    async with serve() as site:

        def look(page: Page) -> None:
            expect(page.locator("#link")).to_have_text("live")
            expect(page.get_by_role("link", name="Invocations")).to_be_hidden()
            page.goto(f"{site.address}{LIST}")
            expect(page.locator("#work-nothing")).to_have_text("This tree has no tasks.")
            expect(page.locator("#submit-task")).to_be_hidden()

        await visit(site, look)
