"""What a manifest may say of HTTP, and what it means."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime._http_spec import HttpSpec
from runtime._listening import ListenError, check_free, parse_bind
from runtime.manifest import Manifest

PROCESSES = [{"name": "a", "path": "sh"}]


def http(said: Any) -> HttpSpec | None:
    return Manifest.model_validate({"processes": PROCESSES, "http": said}).http


@pytest.mark.parametrize("said", [False, "off", None])
def test_it_is_off_when_that_is_said(said: Any) -> None:
    assert http(said) is None


@pytest.mark.parametrize("said", [True, "on", {}])
def test_it_is_served_at_the_default_address_otherwise(said: Any) -> None:
    assert http(said) == HttpSpec()
    assert Manifest.model_validate({"processes": PROCESSES}).http == HttpSpec()


def test_an_address_alone_is_the_short_form() -> None:
    assert http("127.0.0.1:9000") == http({"bind": "127.0.0.1:9000"})


def test_names_of_hosts_are_compared_in_small_letters() -> None:
    made = http({"hosts": ["Shop.Example"]})
    assert made is not None
    assert made.hosts == ("shop.example",)


@pytest.mark.parametrize("said", [False, "127.0.0.1:9000", {"hosts": ["a"], "token_file": "b"}])
def test_what_it_means_survives_a_copy(said: Any) -> None:
    manifest = Manifest.model_validate({"processes": PROCESSES, "http": said})
    again = Manifest.model_validate(manifest.model_dump())
    assert again.http == manifest.http


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "localhost")]
)
def test_a_port_that_is_taken_can_be_told_before(
    family: int, host: str, free_port: Callable[[], int]
) -> None:
    with socket.create_server(("127.0.0.1", free_port()), family=family) as taken:
        bind = parse_bind(f"{host}:{taken.getsockname()[1]}", Path("/"))
        with pytest.raises(ListenError, match="Address already in use"):
            check_free(bind)
    check_free(bind)
    check_free(bind)  # the look itself takes nothing


def test_a_socket_that_is_taken_can_be_told_before(tmp_path: Path) -> None:
    bind = parse_bind("unix:sock", tmp_path)
    check_free(bind)
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(bind.path))
        taken.listen()
        with pytest.raises(ListenError, match="Address already in use"):
            check_free(bind)
    check_free(bind)  # nobody listens at what is left of it
    (tmp_path / "file").touch()
    with pytest.raises(ListenError, match="File exists"):
        check_free(parse_bind("unix:file", tmp_path))


def test_of_a_name_that_has_to_be_looked_up_nothing_is_said() -> None:
    check_free(parse_bind("shop.example:80", Path("/")))
    check_free(parse_bind("127.0.0.1:0", Path("/")))
