"""The clocks that tests run on."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

HOUR_SEC = 3600


@pytest.fixture
async def began_at() -> AsyncGenerator[float]:
    began_at = trio.current_time()
    await trio.lowlevel.checkpoint()
    yield began_at
    await trio.lowlevel.checkpoint()


async def test_an_hour_of_virtual_time_passes_at_once(
    autojump_clock: MockClock, began_at: float
) -> None:
    really_began_at = time.monotonic()
    await trio.sleep(HOUR_SEC)
    assert trio.current_time() - began_at == HOUR_SEC
    assert autojump_clock.current_time() == trio.current_time()
    assert time.monotonic() - really_began_at < HOUR_SEC / 60


@pytest.mark.usefixtures("autojump_clock")
@pytest.mark.parametrize("_run", range(2))
async def test_each_test_has_a_virtual_clock_of_its_own(_run: int) -> None:
    assert trio.current_time() == 0
    await trio.sleep(HOUR_SEC)


@pytest.mark.usefixtures("autojump_clock")
@given(delay_sec=st.integers(1, HOUR_SEC))
async def test_virtual_time_serves_each_example_of_a_property(delay_sec: int) -> None:
    began_at = trio.current_time()
    await trio.sleep(delay_sec)
    assert trio.current_time() == began_at + delay_sec


async def test_time_is_real_where_no_clock_is_asked_for(began_at: float) -> None:
    really_began_at = time.monotonic()
    await trio.sleep(0.05)
    assert time.monotonic() - really_began_at >= 0.05
    assert trio.current_time() - began_at >= 0.05
