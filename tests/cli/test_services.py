"""Services and processes of a manifest run in one tree, from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Program, Site

MODULE = """
import trio
from runtime import Service, ServiceManager

class CacheManager(ServiceManager):
    async def start(self):
        self.logger.info("opened")
        self.nursery.start_soon(self.work)

    async def work(self):
        try:
            await trio.sleep_forever()
        finally:
            self.logger.info("work is over")

    async def stop(self):
        self.logger.info("drained")

class CacheService(Service):
    def create_manager(self):
        return CacheManager(self.logger)
    def requires_configuration(self):
        return False

async def hangs(*, task_status):
    task_status.started()
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)
        print("hangs: over", flush=True)

class StuckManager(CacheManager):
    async def stop(self):
        await trio.sleep_forever()

class StuckService(CacheService):
    def create_manager(self):
        return StuckManager(self.logger)

async def dies():
    raise OSError("no disk")
"""
LOGS = """
import logging
import trio

async def logs(*, task_status):
    task_status.started()
    logger = logging.getLogger("runtime.services.s")
    await trio.to_thread.run_sync(logger.info, "from a %s", "thread")
    logger.debug("quiet")
    logger.warning("two\\nof lines")
    logger.error("bad %d", "record")
    logging.getLogger("elsewhere").warning("elsewhere is odd")
    logging.getLogger("elsewhere").info("quiet")
"""
SAYS_GOODBYE = "trap 'echo bye; exit 0' TERM; SAY; while :; do sleep 0.05; done"


@pytest.fixture
def shop(site: Site) -> Site:
    """A place with a module of services, and three units in a row: api, cache, db."""
    (site.folder / "shop_services.py").write_text(MODULE)
    site.add("db", SAYS_GOODBYE, restart={"when": "always"}, restart_dependents=True)
    site.add("api", SAYS_GOODBYE, dependencies=["cache"])
    site.settings["services"] = [
        {"name": "cache", "class": "shop_services:CacheService", "dependencies": ["db"]}
    ]
    return site


def words(program: Program) -> list[str]:
    """Return what the units have said: name and last word, without what the shell says itself."""
    lines = [re.split(r" +\| ", line, maxsplit=1) for line in program.out.lines]
    return [f"{line[0]} {line[-1].split()[-1]}" for line in lines if "Terminated" not in line[-1]]


def test_a_process_a_service_and_a_process_start_in_order_and_stop_in_reverse(shop: Site) -> None:
    program = shop.start()
    program.read_until("api is ready")
    shop.hear_everyone()
    program.read_until("READY AFTER")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert shop.find_left() == []
    ready = [line.split()[2] for line in program.err.lines if "is ready" in line]
    assert ready == ["db", "cache", "api"]
    assert words(program) == ["cache opened", "api bye", "cache drained", "cache over", "db bye"]


def test_a_crash_restarts_what_depends_on_it_in_order(shop: Site) -> None:
    program = shop.start()
    shop.hear_everyone()
    program.read_until("READY AFTER")
    os.kill(shop.pid_of("db"), signal.SIGKILL)
    assert {shop.hear(), shop.hear()} == {"db", "api"}
    program.read_until("(?s)READY AFTER.*api is ready")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert shop.find_left() == []
    ready = [line.split()[2] for line in program.err.lines if "is ready" in line]
    assert ready == ["db", "cache", "api"] * 2
    said = words(program)
    assert said[:5] == ["cache opened", "api bye", "cache drained", "cache over", "cache opened"]


def test_a_service_whose_stop_hangs_costs_its_own_time_and_is_named(shop: Site) -> None:
    shop.settings["services"][0] |= {"class": "shop_services:StuckService", "timeout": 0.2}
    shop.settings["stop_within_sec"] = 3600
    program = shop.start()
    shop.hear_everyone()  # they have set their traps
    program.read_until("READY AFTER")
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert re.search(
        r"cache stop\(\) was still running after \d+\.\d s and was cut off", program.err.text
    )
    assert "db | bye" in re.sub(" +", " ", program.out.text)


def test_services_alone_keep_the_tree_alive_and_a_dead_one_ends_it_with_its_failure(
    site: Site,
) -> None:
    (site.folder / "shop_services.py").write_text(MODULE)
    site.settings["services"] = [{"name": "dies", "class": "shop_services:dies"}]
    site.manifest.write_text(json.dumps(site.settings))
    program = site.start()
    assert program.wait() == 1
    assert "dies a background task died: OSError: no disk" in program.err.text


def test_a_second_signal_does_not_wait_for_services(shop: Site) -> None:
    shop.settings["services"][0] |= {"class": "shop_services:StuckService", "timeout": 3600}
    shop.settings["stop_within_sec"] = 3600
    program = shop.start()
    program.read_until("READY AFTER")
    program.send(signal.SIGTERM)
    program.read_until("stop: SIGTERM received")
    program.send(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    assert shop.find_left() == []


def test_what_is_logged_is_shown_from_threads_as_well(site: Site) -> None:
    (site.folder / "shop_services.py").write_text(LOGS)
    site.settings["services"] = [{"name": "s", "class": "shop_services:logs"}]
    site.manifest.write_text(json.dumps(site.settings))
    program = site.start()
    assert program.wait() == 0
    said = [line.partition("| ")[2] for line in program.out.lines if line.startswith("s ")]
    assert said == ["from a thread", "two", "of lines"]
    assert "elsewhere is odd" in program.err.text
    assert "quiet" not in program.err.text + program.out.text
