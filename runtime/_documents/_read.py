"""Reads a file: what is no regular file, too large or no text is refused before it is parsed."""

import os
import stat
from pathlib import Path

from ._document import Document, DocumentError
from ._toml import read_toml
from ._yaml import read_yaml

_LARGEST_MB = 10
_LARGEST = _LARGEST_MB * 1024 * 1024


def read_document(path: Path, suffix: str | None = None) -> Document:
    """Read *path*; raise `DocumentError` when it cannot be read or is not well-formed.

    A file that ends in ``.toml`` is read as TOML, one that ends in ``.json`` as JSON, and any other
    as YAML; with *suffix* it is read as if it ended so. No text takes more than about a second for
    each megabyte that it has begun.
    """
    content = _read(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DocumentError(path, line, "is no text in UTF-8") from error
    suffix = (path.suffix if suffix is None else suffix).lower()
    if suffix == ".toml":
        return read_toml(path, text)
    return read_yaml(path, text, is_json=suffix == ".json")


def _read(path: Path) -> bytes:
    """Return what a regular file holds; nothing else is opened, for that may wait or do things."""
    try:
        _check_kind(path, path.stat())
        # It may have been exchanged meanwhile.
        with open(path, "rb", opener=_open_without_waiting) as file:
            _check_kind(path, os.fstat(file.fileno()))
            content = file.read(_LARGEST + 1) or b""
    except OSError as error:
        raise DocumentError(path, 0, error.strerror or str(error)) from error
    if len(content) > _LARGEST:
        raise DocumentError(path, 0, f"is larger than {_LARGEST_MB} MB")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _check_kind(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise DocumentError(path, 0, "is a folder; name the file in it")
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError(path, 0, "is no regular file; only those are read")
    if status.st_size > _LARGEST:
        raise DocumentError(path, 0, f"is larger than {_LARGEST_MB} MB")
