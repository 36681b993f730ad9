"""The one place of late imports: what a child need not wait for is loaded when it is first used.

Each function imports a module that costs tens of milliseconds and returns it. A test keeps what is
imported before the first process is spawned.
"""

import importlib
import io
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any


def h11() -> ModuleType:
    """Return h11, for http checks."""
    return importlib.import_module("h11")


def inotify() -> ModuleType:
    """Return inotify_simple, for who waits for a file."""
    return importlib.import_module("inotify_simple")


def http_server() -> ModuleType:
    """Return ``runtime_http.server``, which loads Quart and Hypercorn."""
    return importlib.import_module("runtime_http.server")


def logging_config() -> ModuleType:
    """Return ``logging.config``, for who configures logging."""
    return importlib.import_module("logging.config")


def parse_env_file(text: str) -> Iterator[tuple[str | None, str | None, int, bool]]:
    """Yield name, value and line of each entry in a file of variables, None for what is none.

    The last one of each tells whether the value stands in single quotes.
    """
    parser = importlib.import_module("dotenv.parser")
    for binding in parser.parse_stream(io.StringIO(text)):
        if binding.error or binding.key is not None:
            key = None if binding.error else binding.key
            written = binding.original.string
            before = written[: len(written) - len(written.lstrip())]  # the empty lines above it
            is_literal = written.partition("=")[2].lstrip().startswith("'")
            yield key, binding.value, binding.original.line + before.count("\n"), is_literal


def parse_json(text: str) -> object:
    """Return what JSON says; raise `ValueError` for what is none."""
    value: object = importlib.import_module("json").loads(text)
    return value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'NAME'?`` for the known name nearest to *name*, else nothing."""
    hint: str = importlib.import_module("runtime._problems").did_you_mean(name, known)
    return hint


def psutil() -> ModuleType:
    """Return psutil, for statistics."""
    return importlib.import_module("psutil")


def rich() -> tuple[ModuleType, ModuleType]:
    """Return ``rich.console`` and ``rich.table``, for what is shown once something runs."""
    return importlib.import_module("rich.console"), importlib.import_module("rich.table")


def tasks() -> ModuleType:
    """Return ``runtime.tasks.units``, for an application that has tasks; it loads AnyIO."""
    return importlib.import_module("runtime.tasks.units")


def state_backend(scheme: str) -> Any:  # noqa: ANN401 - a class of a package that may not be loaded
    """Return the bundled store of invocations for URLs of *scheme*: a class."""
    names = {"memory": "MemoryStateBackend", "sqlite": "SQLiteStateBackend"}
    return getattr(importlib.import_module(f"runtime.state_backend.{scheme}"), names[scheme])


def tcp_control() -> ModuleType:
    """Return the bundled control server, for a manifest that asks for it."""
    return importlib.import_module("runtime.plugins.tcp_control")


def entry_points(group: str) -> Iterator[Any]:
    """Yield the entry points of a *group* that the distributions here have."""
    yield from importlib.import_module("importlib.metadata").entry_points(group=group)


def tomllib() -> ModuleType:
    """Return tomllib, for a manifest in TOML."""
    return importlib.import_module("tomllib")


def command(name: str) -> ModuleType:
    """Return the module behind a command of the command line; `run` forks its guard before."""
    return importlib.import_module(f"runtime.cli._{name}")
