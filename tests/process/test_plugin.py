"""The base class of plugins provides nothing and has a name."""

from __future__ import annotations

from typing import Any

import pytest

from runtime import Plugin
from runtime._plugin_registry import PluginError, PluginRegistry
from runtime.plugin import ControlServer


def test_a_plugin_that_overrides_nothing_provides_nothing() -> None:
    plugin = Plugin()
    assert plugin.get_lifecycle_hooks() == {}
    assert plugin.get_ready_strategies() == {}
    assert plugin.get_stats_handlers() == {}
    assert plugin.get_control_servers() == {}


def test_a_plugin_is_called_by_its_class_unless_it_has_another_name() -> None:
    class Own(Plugin):
        pass

    class Named(Plugin):
        @property
        def name(self) -> str:
            return "something else"

    assert (Plugin().name, Own().name, Named().name) == ("Plugin", "Own", "something else")


def test_a_control_server_needs_no_base_class() -> None:
    class Server:
        def start(self) -> None:
            """Serve."""

        async def stop(self) -> None:
            """End it."""

    server: ControlServer = Server()
    assert server.start() is None


@pytest.mark.parametrize(
    ("question", "answer", "problem"),
    [
        ("get_lifecycle_hooks", [print], "no mapping of events to functions but list"),
        (
            "get_lifecycle_hooks",
            {"prestart": [print]},
            "the event 'prestart', which there is not; did you mean 'pre_start'?",
        ),
        ("get_lifecycle_hooks", {"pre_start": [1]}, "and pre_start no function but int"),
        ("get_stats_handlers", "print", "no list of functions but str"),
        ("get_stats_handlers", [print, None], "no function but NoneType"),
        ("get_ready_strategies", [print], "no function but list"),
        ("get_control_servers", None, "no function but NoneType"),
    ],
)
def test_what_a_plugin_provides_has_to_be_what_is_called(
    question: str, answer: Any, problem: str
) -> None:
    def answer_it(_: Plugin) -> Any:
        return {"x": answer}

    answer_it.__name__ = question
    odd = type("Odd", (Plugin,), {question: answer_it})
    with pytest.raises(PluginError) as refused:
        PluginRegistry().register([odd()])
    assert str(refused.value) == f"{question} of the plugin Odd has for 'x' {problem}"
