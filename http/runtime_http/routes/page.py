"""The page for people: files of this package, read once."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from mimetypes import types_map

from quart import Response, redirect
from quart_schema import hide
from werkzeug.wrappers import Response as AnyResponse

from runtime_http._compress import gzipped, takes_gzip
from runtime_http._quart import Blueprint
from runtime_http.problems import HttpProblem

_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


def _read(folder: Traversable) -> dict[str, tuple[bytes, bytes, str]]:
    """Return the content of each file in *folder*, the same compressed, and its type."""
    found: dict[str, tuple[bytes, bytes, str]] = {}
    for file in folder.iterdir():
        suffix = file.name[file.name.rfind(".") :]
        content = file.read_bytes()
        kind = _TYPES.get(suffix, types_map.get(suffix, ""))
        found[file.name] = (content, gzipped(content), kind)
    return found


def make_page() -> Blueprint:
    """Return the routes of the page, and of the readable description of all others."""
    blueprint = Blueprint("page", __name__)
    package = files("runtime_http")
    pages = {name: _read(package / name) for name in ("page", "docs")}

    def serve(page: str, name: str) -> Response:
        try:
            content, small, kind = pages[page][name]
        except KeyError:
            raise HttpProblem(404, f"the page has no file {name!r}") from None
        headers = {"cache-control": "no-cache", "vary": "accept-encoding"}
        if takes_gzip():
            content, headers["content-encoding"] = small, "gzip"
        return Response(content, content_type=kind, headers=headers)

    def add(path: str, page: str) -> None:
        @hide
        async def leave() -> AnyResponse:
            return redirect(f".{path}/", 308)

        @hide
        async def show(name: str) -> Response:
            return serve(page, name)

        blueprint.add_url_rule(path, f"leave_{page}", leave)
        blueprint.add_url_rule(f"{path}/", f"index_{page}", show, defaults={"name": "index.html"})
        blueprint.add_url_rule(f"{path}/<name>", page, show)

    add("/ui", "page")
    add("/docs", "docs")
    return blueprint
