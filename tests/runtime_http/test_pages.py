"""The pages of docs tell of every route, every status of an error, and every exit status."""

from __future__ import annotations

import re
from pathlib import Path

from runtime.cli import _asking, _output

from .conftest import Serve, sleeper

DOCS = Path(__file__).parents[2] / "docs"
HTTP = (DOCS / "http.md").read_text(encoding="utf-8")


async def test_the_page_has_every_route_that_is_described(serve: Serve) -> None:
    async with serve({"processes": [sleeper("a")]}) as site:
        paths = (await site.get("/openapi.json")).json()["paths"]
    assert len(paths) > 15
    for path, methods in paths.items():
        shown = path.replace("{name}", "NAME").replace("{invocation_id}", "ID")
        short = f"…/{shown.rpartition('/')[2]}"
        for method in map(str.upper, methods):
            assert f"`{method} {shown}`" in HTTP or f"`{short}`" in HTTP, (method, path)


async def test_the_page_has_every_status_of_an_error_that_is_described(serve: Serve) -> None:
    async with serve({"processes": [sleeper("a")]}) as site:
        paths = (await site.get("/openapi.json")).json()["paths"]
    operations = [each for methods in paths.values() for each in methods.values()]
    statuses = {int(status) for each in operations for status in each["responses"]}
    (table,) = re.findall(r"\| status \| when \|\n(.*?)\n\n", HTTP, re.DOTALL)
    told = set(map(int, re.findall(r"\b[45]\d\d\b", table)))
    assert {status for status in statuses if status >= 400} <= told


def test_the_page_of_commands_has_every_exit_status_of_theirs() -> None:
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    told = {int(found) for found in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    named = ("FINE", "NOT_FINE", "USAGE", "NOBODY", "UNKNOWN", "NOT_ALLOWED")
    assert told == {
        *(getattr(_asking, name) for name in named),
        *(_asking.INTERRUPTED, _output.NOT_READ),
    }
