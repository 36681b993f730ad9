"""Finds the program that a manifest names."""

import fnmatch
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_WILDCARDS = "*?["
# A manifest is checked in a moment: no wildcard may walk a disk.
_MOST_ENTRIES = 10_000


def find_executable(path: Path, base: Path, search: str | None = None) -> tuple[Path, bool]:
    """Return the absolute path of a program, and whether it was a bare name found on PATH.

    *search* is the PATH to look at, ours when it is None. Raises `ValueError` saying what to do.
    """
    if any(character in str(path) for character in _WILDCARDS):
        path = _only_match(path, base)
    there = Path(os.path.abspath(base / path))  # noqa: PTH100 - symbolic links stay
    if there.is_file() and os.access(there, os.X_OK):
        return there, False
    if len(path.parts) == 1 and not path.is_absolute():
        found = shutil.which(str(path), path=search)
        if found is not None:
            return Path(os.path.abspath(found)), True  # noqa: PTH100
        if not there.exists():
            raise ValueError(f"there is no {str(path)!r} in {base} nor on PATH")
    if there.is_dir():
        raise ValueError(f"{there} is a folder, not a program")
    if there.exists():
        raise ValueError(f"{there} is not executable; `chmod +x` it")
    raise ValueError(f"there is no program {there}")


def _only_match(path: Path, base: Path) -> Path:
    anchor, parts = (Path(path.anchor), path.parts[1:]) if path.anchor else (base, path.parts)
    search = _Search(path)
    matches = [anchor]
    for part in parts:
        matches = search.step(matches, part)
    if len(matches) != 1:
        found = f"{len(matches)} files match" if matches else "nothing matches"
        raise ValueError(f"{found} {str(path)!r} in {anchor}; it must be exactly one")
    return matches[0]


class _Search:
    """Follows a wildcard part by part, as `Path.glob` does, but not through the whole disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_at = 0

    def step(self, folders: list[Path], part: str) -> list[Path]:
        """Return what *part* of the wildcard matches below *folders*."""
        if part == "**":
            return self._walk(folders)
        if "**" in part:
            raise ValueError(f"{str(self._path)!r} is no valid wildcard: '**' must stand alone")
        if not any(character in part for character in _WILDCARDS):
            return [folder / part for folder in folders if os.path.lexists(folder / part)]
        fits = re.compile(fnmatch.translate(part)).match
        return sorted(
            Path(entry) for folder in folders for entry in self._list(folder) if fits(entry.name)
        )

    def _walk(self, folders: list[Path]) -> list[Path]:
        found = list(folders)
        for folder in found:  # grows as we go
            found += [Path(e) for e in self._list(folder) if e.is_dir(follow_symlinks=False)]
        return list(dict.fromkeys(found))

    def _list(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            entries = list(os.scandir(folder))
        except OSError:  # no folder, or none of ours
            return
        self._looked_at += len(entries)
        if self._looked_at > _MOST_ENTRIES:
            raise ValueError(
                f"{str(self._path)!r} leads to more than {_MOST_ENTRIES} files; name more of it"
            )
        yield from entries
