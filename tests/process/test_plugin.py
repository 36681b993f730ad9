"""The base class of plugins provides nothing and has a name."""

from __future__ import annotations

from runtime import Plugin
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
