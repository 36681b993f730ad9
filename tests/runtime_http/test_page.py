"""The page, in a real Chromium without a window that looks at a real tree."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from playwright.sync_api import Page, expect

from runtime import Service, ServiceConfiguration, ServiceManager

from .browser import CONTRAST, IN_A_BROWSER, Visitor, caller, give_token, save
from .conftest import TOKEN, Serve, Site, answering, own_address, script, sleeper

pytestmark = IN_A_BROWSER
MOST_FIRST_BYTES = 200_000

TREE: dict[str, Any] = {
    "processes": [
        sleeper("db"),
        script("migrate", "echo migrated", shutdown_strategy="do_not_restart", dependencies=["db"]),
        sleeper(
            "api", replicas=2, dependencies=["db", {"name": "migrate", "condition": "completed"}]
        ),
        sleeper("proxy", dependencies=["api"]),
    ],
    "services": [{"name": "idle", "class": "runtime.service.plain:idle"}],
}


class GreeterConfiguration(ServiceConfiguration):
    greeting: str = "hello"


class GreeterManager(ServiceManager):
    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class GreeterService(Service):
    configuration_class = GreeterConfiguration

    def create_manager(self) -> GreeterManager:
        return GreeterManager(self.logger)


@asynccontextmanager
async def serve_half_way(
    serve: Serve, manifest: dict[str, Any], *waiting: str
) -> AsyncGenerator[Site]:
    """Run a tree with units, *waiting*, that do not get what they need."""
    async with serve(manifest) as site, trio.open_nursery() as nursery:
        for name in waiting:
            nursery.start_soon(site.application.supervisor.start_unit, name)
        yield site
        nursery.cancel_scope.cancel()


def row(page: Page, name: str) -> Any:
    return page.locator(f"#units tr[data-name='{name}']")


def state(page: Page, name: str) -> Any:
    return row(page, name).locator(".badge")


def pid_of(site: Site, name: str) -> int:
    assert site.application.pilot is not None
    process = site.application.pilot.get_process_by_name(name)
    assert process is not None
    return process.pid


def settle(page: Page) -> None:
    """Wait until everything is there."""
    expect(page.locator("#trouble-title")).to_have_text("All is well")


async def test_it_shows_every_unit_and_who_waits_for_whom(serve: Serve, visit: Visitor) -> None:
    def look(page: Page) -> None:
        settle(page)
        assert page.url.endswith("/ui/")  # a browser is led there
        expect(page.locator("#units tbody tr")).to_have_count(7)
        expect(page.locator("#graph .node")).to_have_count(7)
        # db to migrate and both api; migrate to both; both to proxy
        expect(page.locator("#graph .edge")).to_have_count(7)
        expect(page.locator("#graph .edge-label").first).to_have_text("ended")
        expect(state(page, "migrate")).to_have_text("completed")
        expect(state(page, "proxy")).to_have_text("ready")
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("[data-look=ready]")).to_contain_text("6 ready")
        expect(page.locator("#events li").first).to_be_visible()  # also what was before it came
        lefts = [
            page.locator(f"[data-node='{name}'] rect").bounding_box()["x"]  # type: ignore[index]
            for name in ("db", "migrate", "api-0", "proxy")
        ]
        assert lefts == sorted(lefts)
        assert len(set(lefts)) == 4

    async with serve(TREE) as site:
        await visit(site, look)


async def test_a_crash_is_shown_with_what_it_holds_up_and_why(serve: Serve, visit: Visitor) -> None:
    again = {"when": "always", "delay_sec": 600, "max_delay_sec": 600}
    manifest = {
        "processes": [
            sleeper("db", restart=again, restart_dependents=True),
            sleeper("api", dependencies=["db"]),
            sleeper("other"),
        ]
    }

    async with serve(manifest) as site:

        def look(page: Page) -> None:
            settle(page)
            os.kill(pid_of(site, "db"), signal.SIGKILL)
            expect(state(page, "db")).to_have_text("backoff")
            expect(page.locator("#trouble-title")).to_have_text("One thing is wrong")
            trouble = page.locator("[data-trouble=db]")
            expect(trouble).to_contain_text("SIGKILL")
            expect(trouble).to_contain_text("next try in")
            expect(trouble).to_contain_text("holds up api")
            expect(page.locator("#graph .node.bad")).to_have_count(1)
            expect(page.locator("#graph .edge.unmet")).to_have_count(1)
            expect(page).to_have_title(re.compile(r"^\(1\) ⚠"))
            expect(page.locator("#said")).to_have_text("db is backoff")  # to a screen reader
            # the troubled one stands first, and opens with why
            expect(page.locator("#units tbody tr").first).to_have_attribute("data-name", "db")
            trouble.get_by_role("button", name="db").click()
            expect(page.locator("#tab-why")).to_have_attribute("aria-selected", "true")
            expect(page.locator(".why li").first).to_contain_text("SIGKILL")
            # what waits tells whose fault that is
            row(page, "api").click()
            expect(page.locator("#detail-title")).to_have_text("api")
            expect(page.locator(".why li").last).to_contain_text("db")

        await visit(site, look)


async def test_restarting_takes_the_token(serve: Serve, visit: Visitor) -> None:
    async with serve(TREE) as site:

        def look(page: Page) -> None:
            settle(page)
            before = pid_of(site, "proxy")
            row(page, "proxy").click()
            restart = page.locator("[data-verb=restart]")
            result = page.locator("#action-result")
            restart.click()
            page.locator("#token-cancel").click()
            expect(result).to_have_text("restart: not done, as it takes the token")
            restart.click()
            give_token(page, "not it")
            expect(page.locator("#token-why")).to_have_text("This token was refused.")
            assert pid_of(site, "proxy") == before
            give_token(page, TOKEN)
            expect(result).to_have_text("restart: done")
            second = pid_of(site, "proxy")
            assert second not in (0, before)
            restart.click()  # it is known now
            expect(page.locator("#events li").first).to_be_attached()
            page.wait_for_function("() => !document.querySelector('[data-verb=restart]').disabled")
            expect(result).to_have_text("restart: done")
            assert pid_of(site, "proxy") not in (0, before, second)
            page.locator("[data-verb=stop]").click()
            expect(state(page, "proxy")).to_have_text("idle")
            expect(page.locator("[data-verb=stop]")).to_be_disabled()
            page.locator("[data-verb=start]").click()
            expect(state(page, "proxy")).to_have_text("ready")
            # kept for this tab, nowhere that outlives it, and forgotten when told to
            assert page.evaluate("sessionStorage.length + ' ' + localStorage.length") == "1 0"
            page.locator("#token-button").click()
            page.locator("#token-forget").click()
            expect(page.locator("#token-button")).to_have_text("Token")
            assert page.evaluate("sessionStorage.length") == 0

        await visit(site, look, complaints="401")


async def test_where_no_token_is_needed_the_page_asks_for_none(
    serve: Serve, visit: Visitor, tmp_path: Path
) -> None:
    """A proxy stands before a unix socket, or adds the token itself."""
    path = str(tmp_path / "sock")

    async def hand_on(client: trio.SocketStream) -> None:
        async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):
                async for data in source:
                    await target.send_all(data)
            nursery.cancel_scope.cancel()

        async with await trio.open_unix_socket(path) as server, trio.open_nursery() as nursery:
            nursery.start_soon(copy, client, server)
            nursery.start_soon(copy, server, client)

    async with serve(TREE, bind=f"unix:{path}") as site, answering(hand_on) as proxy:

        def look(page: Page) -> None:
            settle(page)
            before = pid_of(site, "proxy")
            row(page, "proxy").click()
            page.locator("[data-verb=restart]").click()
            expect(page.locator("#action-result")).to_have_text("restart: done")
            assert pid_of(site, "proxy") not in (0, before)

        await visit(replace(site, address=proxy), look)


async def test_where_reading_takes_the_token_the_page_asks_for_it(
    serve: Serve, visit: Visitor
) -> None:
    own = own_address()
    async with serve(TREE, bind=f"{own or '0.0.0.0'}:0") as site:  # noqa: S104 - that is tested
        reached = replace(site, address=f"http://{own or '127.0.0.1'}:{site.port}")

        def look(page: Page) -> None:
            assert page.url.endswith("/ui/")  # a browser is led there
            asked = page.locator("#token-why")
            expect(asked).to_have_text("Reading takes it here, too.")
            expect(page.locator("#link")).to_have_text("takes the token")
            expect(page.locator("#units tbody tr")).to_have_count(0)
            page.locator("#token-cancel").click()
            page.locator("#retry").click()  # nothing is tried without a token, but when told to
            give_token(page, "not it")
            expect(asked).to_have_text("This token was refused.")
            give_token(page, TOKEN)
            settle(page)
            expect(page.locator("#notice")).to_be_hidden()
            expect(page.locator("#units tbody tr")).to_have_count(7)
            row(page, "proxy").click()
            page.locator("#tab-logs").click()
            expect(page.locator("#log-found")).to_be_attached()
            page.locator("[data-verb=restart]").click()  # it is known now
            expect(page.locator("#action-result")).to_have_text("restart: done")
            page.reload()
            settle(page)
            page.get_by_role("link", name="API").click()  # the same for every tree
            expect(page.locator("details").first).to_be_visible()

        # That policy is for https, which a proxy may do.
        await visit(reached, look, complaints="401|Cross-Origin-Opener-Policy")


async def test_a_refusal_is_told(serve: Serve, visit: Visitor) -> None:
    fields = {"ready_strategy": "file", "ready_params": {"path": "never"}}
    job = script("job", "exit 3", shutdown_strategy="do_not_restart", **fields)

    def look(page: Page) -> None:
        row(page, "job").click()
        page.locator("[data-verb=start]").click()
        give_token(page, TOKEN)
        expect(page.locator("#action-result")).to_contain_text("exited with 3")

    async with serve({"processes": [job]}) as site:
        await visit(site, look, complaints="401|409")


async def test_logs_are_live_filtered_and_searched(
    serve: Serve, visit: Visitor, tmp_path: Path
) -> None:
    spoken = tmp_path / "spoken.txt"
    spoken.write_text("first\n\x1b[31mred\x1b[0m\n")
    code = f"echo wrong >&2; exec tail -n +1 -f {spoken}"

    def say(*lines: str) -> None:
        with spoken.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def look(page: Page) -> None:
        lines = page.locator("#log-lines")
        row(page, "speaker").click()
        page.locator("#tab-logs").click()
        expect(lines.locator(".line")).to_have_count(3)
        expect(lines.locator(".stderr .text")).to_have_text("wrong")
        expect(lines.get_by_text("red", exact=True)).to_be_visible()  # without its colour
        say("apple", "pear", "apple pie")
        expect(lines.get_by_text("apple pie")).to_be_visible()

        page.locator("#log-filter").fill("APPLE")
        expect(lines.locator(".line")).to_have_count(2)
        say("pineapple", "plum")
        expect(lines.locator(".line")).to_have_count(3)
        page.locator("#log-filter").fill("")
        expect(lines.locator(".line")).to_have_count(8)
        page.locator("#log-stream").select_option("stderr")
        expect(lines.locator(".line")).to_have_count(1)
        page.locator("#log-stream").select_option("")

        search = page.locator("#log-search")
        search.fill("apple")
        expect(page.locator("#log-found")).to_have_text("3 of 3")
        expect(page.locator("#log-here")).to_have_text("apple")
        search.press("Enter")
        expect(page.locator("#log-found")).to_have_text("1 of 3")
        search.press("Shift+Enter")
        expect(page.locator("#log-found")).to_have_text("3 of 3")
        search.fill("cherry")
        expect(page.locator("#log-found")).to_have_text("not found")
        search.fill("")

        # Who scrolls back is left in peace, and who asks for it follows again.
        follow = page.locator("#log-follow")
        follow.check()
        say(*(f"line {number}" for number in range(200)))
        at_end = "e => e.scrollHeight - e.scrollTop - e.clientHeight < 30"
        expect(lines.get_by_text("line 199")).to_be_in_viewport()
        assert lines.evaluate(at_end)
        lines.evaluate("e => { e.scrollTop = 0; }")
        expect(follow).not_to_be_checked()
        say("the last")
        expect(lines.locator(".line")).to_have_count(209)
        assert lines.evaluate("e => e.scrollTop") == 0
        follow.check()
        expect(lines.get_by_text("the last")).to_be_in_viewport()

    async with serve({"processes": [script("speaker", code)]}) as site:
        await visit(site, look)


async def test_it_can_be_used_with_the_keyboard_alone(serve: Serve, visit: Visitor) -> None:
    def look(page: Page) -> None:
        settle(page)
        page.keyboard.press("/")
        expect(page.locator("#filter")).to_be_focused()
        page.keyboard.type("api")
        expect(page.locator("#units tbody tr:visible")).to_have_count(2)
        expect(page.locator("#count")).to_have_text("2 of 7")
        expect(page.locator("[data-node=idle]")).to_have_class(re.compile(r"\bdim\b"))
        page.keyboard.press("Escape")  # empties it
        expect(page.locator("#count")).to_have_text("7")
        page.keyboard.type("api-")
        expect(page.locator("#count")).to_have_text("2 of 7")
        page.keyboard.press("ArrowDown")
        expect(row(page, "api-0").locator("button")).to_be_focused()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")  # there is no other
        expect(row(page, "api-1").locator("button")).to_be_focused()
        page.keyboard.press("Home")
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        expect(page.locator("#detail-title")).to_have_text("api-1")
        expect(row(page, "api-1").locator("button")).to_have_attribute("aria-expanded", "true")
        assert page.url.endswith("#api-1")
        page.locator("#tab-about").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#tab-why")).to_be_focused()
        page.keyboard.press("End")
        expect(page.locator("#tab-use")).to_have_attribute("aria-selected", "true")
        page.keyboard.press("ArrowRight")  # round again
        expect(page.locator("#tab-about")).to_be_focused()
        expect(page.locator("#tab-panel")).to_contain_text("needs")
        page.keyboard.press("Escape")
        expect(page.locator("#detail")).to_be_hidden()
        expect(row(page, "api-1").locator("button")).to_be_focused()
        # the table is one stop of the tabulator key
        assert page.locator("#units tbody button[tabindex='0']").count() == 1

    async with serve(TREE) as site:
        await visit(site, look)


async def test_to_go_back_closes_a_unit_and_to_close_it_goes_back(
    serve: Serve, visit: Visitor
) -> None:
    def look(page: Page) -> None:
        settle(page)
        detail = page.locator("#detail")
        row(page, "db").click()
        row(page, "proxy").click()
        expect(page.locator("#detail-title")).to_have_text("proxy")
        page.go_back()
        expect(detail).to_be_hidden()
        assert page.url.endswith("/ui/")
        page.go_forward()
        expect(page.locator("#detail-title")).to_have_text("proxy")
        page.locator("#close").click()
        expect(detail).to_be_hidden()
        page.wait_for_url("**/ui/")
        row(page, "db").click()
        page.keyboard.press("Escape")
        expect(detail).to_be_hidden()
        page.wait_for_url("**/ui/")
        page.goto(f"{page.url}#proxy")  # what somebody has been sent
        expect(page.locator("#detail-title")).to_have_text("proxy")
        page.keyboard.press("Escape")
        expect(detail).to_be_hidden()
        page.wait_for_url("**/ui/")

    async with serve(TREE) as site:
        await visit(site, look)


async def test_the_table_is_sorted_and_narrowed(serve: Serve, visit: Visitor) -> None:
    names = "rows => rows.filter(row => !row.hidden).map(row => row.dataset.name)"

    def look(page: Page) -> None:
        settle(page)
        rows = page.locator("#units tbody tr")
        head = page.locator("th[data-sort=name]")
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", "ascending")
        ordered = ["api-0", "api-1", "db", "http", "idle", "migrate", "proxy"]
        page.wait_for_function("document.querySelector('#units tbody tr').dataset.name === 'api-0'")
        assert rows.evaluate_all(names) == ordered
        head.get_by_role("button").click()
        page.wait_for_function("document.querySelector('#units tbody tr').dataset.name === 'proxy'")
        assert rows.evaluate_all(names) == ordered[::-1]
        page.locator("#show").select_option("service")
        expect(page.locator("#count")).to_have_text("1 of 7")
        page.locator("#show").select_option("bad")
        expect(page.locator("#nothing")).to_be_visible()
        page.locator("#show").select_option("all")
        chip = page.locator("[data-look=completed]")
        chip.click()
        expect(page.locator("#count")).to_have_text("1 of 7")
        expect(chip).to_have_attribute("aria-pressed", "true")
        chip.click()
        expect(page.locator("#count")).to_have_text("7")

    async with serve(TREE) as site:
        await visit(site, look)


async def test_what_a_stop_waits_for_is_counted_down(serve: Serve, visit: Visitor) -> None:
    stubborn = script("stubborn", "trap '' TERM; while :; do sleep 1; done", timeout=500)
    stubborn["timeout"] = 500

    async with serve({"processes": [stubborn], "stop_within_sec": 600}) as site:

        def look(page: Page) -> None:
            settle(page)
            row(page, "stubborn").click()
            page.locator("[data-verb=stop]").click()
            give_token(page, TOKEN)
            expect(state(page, "stubborn")).to_have_text("stopping")
            stop = page.locator("#tab-panel dd").filter(has_text=re.compile("left of 8 min"))
            expect(stop).to_be_visible()
            told = stop.text_content()
            assert told is not None
            expect(stop).not_to_have_text(told)  # time goes on
            os.killpg(pid_of(site, "stubborn"), signal.SIGKILL)
            expect(state(page, "stubborn")).to_have_text("idle")

        await visit(site, look, complaints="401")


async def test_use_is_drawn(serve: Serve, visit: Visitor) -> None:
    def look(page: Page) -> None:
        settle(page)
        row(page, "db").click()
        page.locator("#tab-use").click()
        expect(page.locator("#tab-panel figcaption").first).to_contain_text("% of a core")
        expect(page.locator("#tab-panel .line").last).to_have_attribute("d", re.compile("M.+L"))
        expect(page.locator("#tab-panel dl")).to_contain_text("open files")
        cells = row(page, "db").locator("td.number")
        expect(cells.last).to_have_text(re.compile(r"^\d+\.\d$"))

    async with serve(TREE) as site:
        await visit(site, look)


async def test_a_service_shows_its_configuration(serve: Serve, visit: Visitor) -> None:
    def look(page: Page) -> None:
        row(page, "greeter").click()
        page.locator("#tab-configuration").click()
        expect(page.locator("#configuration")).to_contain_text('"greeting": "good evening"')
        page.locator("[data-verb=start]").click()
        give_token(page, TOKEN)
        expect(state(page, "greeter")).to_have_text("ready")

    async with serve() as site:
        greeter = site.application.register_service(GreeterService, "greeter")
        greeter.configure({"greeting": "good evening"})
        await visit(site, look, complaints="401")


async def test_a_lost_connection_is_plain_to_see_and_comes_back(
    serve: Serve, visit: Visitor, free_port: Callable[[], int]
) -> None:
    async with serve(TREE, bind=f"127.0.0.1:{free_port()}") as site:
        call, supervisor = caller(), site.application.supervisor

        def look(page: Page) -> None:
            settle(page)
            row(page, "db").click()
            notice = page.locator("#notice")
            expect(notice).to_be_hidden()
            call(supervisor.stop_unit, "http")
            expect(notice).to_contain_text("Connection lost.")
            expect(notice).to_contain_text("as it was at")
            expect(page.locator("#link")).to_have_text("not connected")
            expect(page.locator("#main")).to_have_class(re.compile("stale"))
            expect(page.locator("[data-verb=restart]")).to_be_disabled()
            with page.expect_request("**/events"):
                page.locator("#retry").click()
            call(supervisor.restart_unit, "api-0")  # unseen
            call(supervisor.start_unit, "http")  # and sooner or later it tries by itself
            expect(notice).to_be_hidden()
            expect(page.locator("#link")).to_have_text("live")
            page.locator("#tab-about").click()
            row(page, "api-0").click()
            expect(page.locator("#tab-panel dl")).to_contain_text("generation2")
            call(site.application.stop)
            expect(notice).to_contain_text("The tree has stopped.")

        await visit(site, look, complaints="ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_EMPTY")


#: A unit in each of the conditions that have a colour.
EVERYTHING: dict[str, Any] = {
    "processes": [
        sleeper("ready"),
        script("completed", "exit 0", shutdown_strategy="do_not_restart"),
        script("failed", "echo oh >&2; exit 3", shutdown_strategy="do_not_restart"),
        sleeper("held", dependencies=[{"name": "failed", "condition": "completed_successfully"}]),
        script(
            "backoff", "exit 4", restart={"when": "failure", "delay_sec": 600, "max_delay_sec": 600}
        ),
        sleeper(
            "starting",
            ready_strategy="file",
            ready_params={"path": "never"},
            ready_timeout_sec=600,
            autostart=False,
        ),
        sleeper("waiting", dependencies=["starting"], autostart=False),
        sleeper("idle", autostart=False),
    ]
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read(serve: Serve, visit: Visitor, scheme: Any) -> None:
    def look(page: Page) -> None:
        stages = [each["name"] for each in EVERYTHING["processes"]]
        for name in stages:
            expect(state(page, name)).to_have_text(name)
        row(page, "failed").click()
        for tab in ("about", "why", "logs"):
            page.locator(f"#tab-{tab}").click()
            expect(page.locator("#tab-panel :is(dd, li, .line)").first).to_be_visible()
            looked, found = page.evaluate(CONTRAST)
            assert looked > 60
            assert found == []
        page.locator("#close").click()
        expect(page.locator("#events li").first).to_be_visible()
        page.locator("#token-button").click()
        assert page.evaluate(CONTRAST)[1] == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        darkness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
        assert (darkness < 60) if scheme == "dark" else (darkness > 200)
        page.keyboard.press("Escape")
        expect(page.locator("#token-dialog")).to_be_hidden()
        page.locator("#theme").click()  # the other one, which is remembered
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
        assert page.evaluate(CONTRAST)[1] == []
        page.reload()
        expect(state(page, "failed")).to_be_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground

    async with serve_half_way(serve, EVERYTHING, "waiting") as site:
        await visit(site, look, color_scheme=scheme)


async def test_nothing_moves_for_who_does_not_want_that(serve: Serve, visit: Visitor) -> None:
    animation = "e => getComputedStyle(e).animationName"

    def look(page: Page) -> None:
        starting = page.locator(".node.starting rect")
        expect(starting).to_have_count(1)
        assert starting.evaluate(animation) == "pulse"
        page.emulate_media(reduced_motion="reduce")
        assert starting.evaluate(animation) == "none"

    async with serve_half_way(serve, EVERYTHING, "waiting") as site:
        await visit(site, look)


@pytest.mark.parametrize("width", [320, 390, 800])
async def test_nothing_is_wider_than_the_window(serve: Serve, visit: Visitor, width: int) -> None:
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"

    def look(page: Page) -> None:
        expect(state(page, "backoff")).to_have_text("backoff")
        assert page.evaluate(fits)
        expect(row(page, "backoff").locator(".reason")).to_be_visible()
        row(page, "failed").click()
        for tab in ("about", "why", "logs", "use"):
            page.locator(f"#tab-{tab}").click()
            expect(page.locator("#tab-panel > *").first).to_be_attached()
            assert page.evaluate(fits)
            inside = "e => e.scrollWidth <= e.clientWidth"
            assert page.locator("#detail").evaluate(inside)
        page.locator("#close").click()
        expect(page.locator("#detail")).to_be_hidden()

    async with serve_half_way(serve, EVERYTHING, "waiting") as site:
        await visit(site, look, viewport={"width": width, "height": 800}, has_touch=True)


#: Roles that a person operates, or goes to.
NAMED = {
    "button", "textbox", "searchbox", "combobox", "checkbox", "tab", "tabpanel", "tablist", "link",
    "dialog", "table", "region", "complementary", "navigation", "log", "group", "image",
}  # fmt: skip


async def test_everything_has_a_name_for_screen_readers(serve: Serve, visit: Visitor) -> None:
    def look(page: Page) -> None:
        row(page, "failed").click()
        page.locator("#tab-logs").click()
        expect(page.locator("#log-lines .line")).not_to_have_count(0)
        devtools = page.context.new_cdp_session(page)
        devtools.send("Accessibility.enable")
        nodes = devtools.send("Accessibility.getFullAXTree")["nodes"]
        shown = [each for each in nodes if not each["ignored"]]
        roles = {each["role"]["value"] for each in shown}
        assert {"button", "searchbox", "combobox", "checkbox", "tab", "table", "log"} <= roles
        assert {"rowheader", "columnheader", "heading", "main", "banner", "alert"} - roles <= {
            "alert"
        }
        nameless = [
            each["role"]["value"]
            for each in shown
            if each["role"]["value"] in NAMED and not each.get("name", {}).get("value")
        ]
        assert nameless == []
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
        referred = page.evaluate(
            """['aria-controls', 'aria-labelledby'].flatMap(name =>
                 [...document.querySelectorAll(`[${name}]`)].map(e => e.getAttribute(name)))"""
        )
        assert set(referred) <= set(ids)
        assert page.evaluate("document.documentElement.lang") == "en"

    async with serve_half_way(serve, EVERYTHING, "waiting") as site:
        await visit(site, look)


async def test_three_hundred_units_are_a_light_and_quiet_page(serve: Serve, visit: Visitor) -> None:
    count = 300
    processes = [sleeper("db"), sleeper("cache", dependencies=["db"])]
    needs: list[list[str]] = [["db"], ["cache"], []]
    services = [
        {
            "name": f"worker-{number}",
            "class": "runtime.service.plain:idle",
            "dependencies": needs[number % 3],
        }
        for number in range(285)
    ]
    processes += [
        sleeper(f"worker-{number}", dependencies=needs[number % 3])
        for number in range(285, count - 3)  # the server itself is one
    ]
    processes[-1]["restart"] = {"when": "always", "delay_sec": 600, "max_delay_sec": 600}
    victim = processes[-1]["name"]

    async with serve({"processes": processes, "services": services}) as site:
        await site.application.supervisor.wait_settled()

        def look(page: Page) -> None:
            # What comes for the view before is not to count.
            expect(row(page, "db").locator("td.number").last).not_to_have_text("")
            expect(page.locator("#events li").first).to_be_attached()
            devtools = page.context.new_cdp_session(page)
            devtools.send("Network.enable")
            received: dict[str, int] = {}

            def grow(data: dict[str, Any]) -> None:  # as it is, while it comes
                name = data["requestId"]
                received[name] = received.get(name, 0) + data["dataLength"]

            def end(data: dict[str, Any]) -> None:  # as it has travelled, headers included
                received[data["requestId"]] = data["encodedDataLength"]

            devtools.on("Network.dataReceived", grow)
            devtools.on("Network.loadingFinished", end)
            page.reload()
            expect(page.locator("#units tbody tr")).to_have_count(count)
            expect(page.locator("#events li").first).to_be_attached()
            expect(row(page, "db").locator("td.number").last).not_to_have_text("")  # used, as well
            size = sum(received.values())
            print(f"first view of {count} units: {size} bytes")  # noqa: T201
            assert 50_000 < size < MOST_FIRST_BYTES
            # Wide layers are wrapped: 100 units below each other would be two and a half as high.
            box = page.locator("#graph svg").bounding_box()
            assert box is not None
            assert box["height"] < 1.3 * box["width"]
            assert box["width"] <= page.locator("#graph").evaluate("e => e.clientWidth") * 1.05
            # One that crashes is redrawn, and none of the others.
            page.evaluate(
                """() => { window.touched = new Set();
                new MutationObserver((all) => all.forEach((each) => {
                    const element = each.target.closest ? each.target : each.target.parentElement;
                    const node = element.closest('.node');
                    window.touched.add(node?.dataset.node ?? 'everything');
                })).observe(document.querySelector('#graph'),
                    {subtree: true, childList: true, attributes: true, characterData: true}); }"""
            )
            os.kill(pid_of(site, victim), signal.SIGKILL)
            expect(page.locator(f"[data-trouble='{victim}']")).to_be_visible()
            expect(page.locator("#graph .node.bad")).to_have_count(1)
            touched = set(page.evaluate("[...window.touched]"))
            assert touched - {"everything"} == {victim}  # (the drawing may have got another size)
            save(page, "many")

        await visit(site, look)


async def test_the_routes_are_described_on_a_page(serve: Serve, visit: Visitor) -> None:
    async with serve(TREE) as site:
        described = (await site.get("/openapi.json")).json()["paths"]
        count = sum(len(operations) for operations in described.values())

        def look(page: Page) -> None:
            expect(page.locator("details")).to_have_count(count)
            page.keyboard.press("/")
            page.keyboard.type("restart a process")
            shown = page.locator("details:visible")
            expect(shown).to_have_count(1)
            shown.locator("summary").click()
            expect(shown).to_contain_text("ProcessView".removesuffix("View"), ignore_case=True)
            expect(shown.locator("pre")).to_contain_text("curl -X POST")
            link = page.url
            assert link.endswith(str(shown.get_attribute("id")))
            assert page.evaluate(CONTRAST)[1] == []
            page.reload()
            expect(page.locator("details[open]")).to_have_count(1)  # a link leads to a route
            page.set_viewport_size({"width": 390, "height": 800})
            fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            assert page.evaluate(fits)

        await visit(site, look, path="/docs")


SHOP: dict[str, Any] = {
    "processes": [
        sleeper("db"),
        script("migrate", "exit 0", shutdown_strategy="do_not_restart", dependencies=["db"]),
        sleeper("cache", dependencies=["db"]),
        sleeper(
            "api",
            replicas=2,
            dependencies=["cache", {"name": "migrate", "condition": "completed_successfully"}],
        ),
        sleeper("proxy", dependencies=["api"]),
        script(
            "mailer",
            "echo connecting to the mail server; echo 'refused: wrong password' >&2; exit 7",
            restart={"when": "failure", "delay_sec": 30, "max_delay_sec": 30},
            dependencies=["db"],
        ),
        sleeper("digest", dependencies=["mailer"], autostart=False),
        sleeper(
            "search",
            ready_strategy="file",
            ready_params={"path": "never"},
            ready_timeout_sec=600,
            autostart=False,
        ),
        sleeper("suggest", dependencies=["search"], autostart=False),
    ],
    "services": [{"name": "idle", "class": "runtime.service.plain:idle"}],
}


async def test_a_picture_is_taken(serve: Serve, visit: Visitor) -> None:
    """`nox -s picture` makes it that of the docs."""

    def look(page: Page) -> None:
        expect(state(page, "proxy")).to_have_text("ready")
        expect(state(page, "mailer")).to_have_text("backoff")
        expect(state(page, "digest")).to_have_text("waiting")
        page.locator("[data-trouble=mailer]").get_by_role("button").click()
        page.locator("#tab-logs").click()
        expect(page.locator("#log-lines")).to_contain_text("wrong password")
        expect(row(page, "db").locator("td.number").last).not_to_have_text("")
        picture = save(page, "page")
        assert 10_000 < picture.stat().st_size < 200_000

    async with serve_half_way(serve, SHOP, "suggest", "digest") as site:
        await visit(site, look, viewport={"width": 1280, "height": 860})
