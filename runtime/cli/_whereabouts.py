"""Where a running tree is reached: by its manifest's run directory, or by an address."""

import os
from dataclasses import dataclass
from pathlib import Path

from runtime._documents import DocumentError, read_document
from runtime.process._source import prepare
from runtime.run_directory import (
    HTTP_FILE,
    TOKEN_FILE,
    RunDirectoryError,
    default_run_directory,
    is_taken,
)

#: The variable that may hold the token of a tree at another address.
TOKEN_VARIABLE = "RUNTIME_TOKEN"  # noqa: S105 - a name


class NoTreeError(Exception):
    """No running tree is found; *where* is what was looked at."""

    where: str
    problem: str

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where, self.problem = where, problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class ForeignTreeError(NoTreeError):
    """The tree is not ours to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """What the options of a command say of the tree that is meant."""

    manifest: Path = Path("manifest.yaml")
    run_directory: Path | None = None
    url: str | None = None
    token_file: Path | None = None

    def find(self) -> tuple[str, str | None]:
        """Return the address of the tree, and the token; raise `NoTreeError`.

        `ForeignTreeError` is one of these.
        """
        try:
            return self._find()
        except PermissionError as error:
            words = f"{error.strerror}; only the user who has started the tree may read that"
            raise ForeignTreeError(str(error.filename), words) from error

    def _find(self) -> tuple[str, str | None]:
        if self.url is not None:
            token = os.environ.get(TOKEN_VARIABLE) or None
            return _as_url(self.url), token if self.token_file is None else self._read_token()
        folder = self.run_directory or self._folder_of_manifest()
        address = _read(folder / HTTP_FILE)
        # A tree that was killed has left its address, which may be that of another one by now.
        if not is_taken(folder):
            words = f"no tree serves HTTP from {folder}; start it, or give its --url"
            raise NoTreeError(str(self.run_directory or self.manifest), words)
        if address is None:
            words = f"the tree that has {folder} serves no HTTP yet, or is not to (--no-http)"
            raise NoTreeError(str(self.run_directory or self.manifest), words)
        return address, _read(
            folder / TOKEN_FILE
        ) if self.token_file is None else self._read_token()

    def _read_token(self) -> str:
        token = _read(self.token_file) if self.token_file is not None else None
        if token is None:
            raise NoTreeError(str(self.token_file), "there is no token to be read")
        return token

    def _folder_of_manifest(self) -> Path:
        if not self.manifest.exists():
            words = "there is no such manifest; name it by -f, or the tree by --url"
            raise NoTreeError(str(self.manifest), words)
        try:
            return _named_folder(self.manifest) or default_run_directory(self.manifest)
        except (DocumentError, RunDirectoryError) as error:
            raise NoTreeError(str(self.manifest), str(error)) from error


def _as_url(given: str) -> str:
    """Return the address in *given*, which may be HOST:PORT alone, or that of the page."""
    if given.startswith("unix:"):
        return given
    url = given if "://" in given else f"http://{given}"
    return url.partition("#")[0].rstrip("/").removesuffix("/ui")


def _named_folder(manifest: Path) -> Path | None:
    """Return the run directory that the manifest names; whether the rest is right is not asked."""
    data = prepare(read_document(manifest).data, manifest.parent).data
    if not isinstance(data, dict):
        return None
    named = data.get("run_directory")
    if not isinstance(named, str):
        return None
    base = data.get("base_directory")
    start = Path(base) if isinstance(base, str) else manifest.parent
    return Path(os.path.abspath(start / named))  # noqa: PTH100 - links stay


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except PermissionError:
        raise
    except OSError:
        return None
