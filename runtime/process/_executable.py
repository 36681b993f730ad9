"""Finds the program that a manifest names."""

import fnmatch
import os
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

_WILDCARDS = "*?["
# A manifest is checked in a moment: no wildcard may walk a disk.
_MOST_ENTRIES = 10_000
_MOST_LOOKS = 50_000
_LONGEST_NAME = 255
_CHARACTERS_PER_LOOK = 2  # of a wildcard: to translate it takes longer than to look at a name
_MOST_SEARCHES = 100_000


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder; a name that no file can have is none.

    (`Path.is_dir` and its siblings raise where the name is too long.)
    """
    return os.path.isdir(path)  # noqa: PTH112


class Finder:
    """Finds the programs of one manifest; what it has seen on the disk once it does not ask again.

    All wildcards together look at 50,000 names at the most, and into folders with 10,000; all
    names together are looked for in 100,000 folders of a PATH.
    """

    def __init__(self) -> None:
        self._which = cache(self._search)
        self._list: Callable[[Path], list[os.DirEntry[str]]] = cache(self._scan)
        self._entries = self._looks = self._searches = 0

    def executable(self, path: Path, base: Path, search: str | None = None) -> tuple[Path, bool]:
        """Return the absolute path of a program, and whether it was a bare name found on PATH.

        *search* is the PATH to look at, ours when it is None. Raises `ValueError` with the remedy.
        """
        if any(character in str(path) for character in _WILDCARDS):
            path = self._only_match(path, base)
        there = Path(os.path.abspath(base / path))  # noqa: PTH100 - symbolic links stay
        if os.path.isfile(there) and os.access(there, os.X_OK):  # noqa: PTH113 - see is_folder
            return there, False
        if len(path.parts) == 1 and not path.is_absolute():
            found = self._which(str(path), search)
            if found is not None:
                return Path(os.path.abspath(found)), True  # noqa: PTH100
            if not os.path.exists(there):  # noqa: PTH110
                raise ValueError(f"there is no {str(path)!r} in {base} nor on PATH")
        if is_folder(there):
            raise ValueError(f"{there} is a folder, not a program")
        if os.path.exists(there):  # noqa: PTH110
            raise ValueError(f"{there} is not executable; `chmod +x` it")
        raise ValueError(f"there is no program {there}")

    def _search(self, name: str, search: str | None) -> str | None:
        if search is not None:
            self._searches += 1 + search.count(os.pathsep)
            if self._searches > _MOST_SEARCHES:
                raise ValueError("its PATH leads through too many folders; name the program's own")
        return shutil.which(name, path=search)

    def _only_match(self, path: Path, base: Path) -> Path:
        anchor, parts = (Path(path.anchor), path.parts[1:]) if path.anchor else (base, path.parts)
        matches = [anchor]
        for part in parts:
            try:
                matches = self._step(matches, part)
            except _TooManyError as error:
                words = "leads to too many files; name more of its folders"
                raise ValueError(f"{str(path)!r} {words}") from error
        if len(matches) != 1:
            found = f"{len(matches)} files match" if matches else "nothing matches"
            raise ValueError(f"{found} {str(path)!r} in {anchor}; it must be exactly one")
        return matches[0]

    def _step(self, folders: list[Path], part: str) -> list[Path]:
        """Return what *part* of a wildcard matches below *folders*, as `Path.glob` does."""
        if part == "**":
            return self._walk(folders)
        if "**" in part:
            raise ValueError(f"{part!r} is no valid wildcard: '**' must stand for whole folders")
        if len(part) > _LONGEST_NAME:
            raise ValueError(f"no file has a name of more than {_LONGEST_NAME} characters")
        if not any(character in part for character in _WILDCARDS):
            self._count_looks(len(folders))
            return [folder / part for folder in folders if os.path.lexists(folder / part)]
        self._count_looks(len(part) // _CHARACTERS_PER_LOOK)
        fits = re.compile(fnmatch.translate(part)).match
        found: list[Path] = []
        for folder in folders:
            entries = self._list(folder)
            self._count_looks(len(entries))
            found += [Path(entry) for entry in entries if fits(entry.name)]
        return sorted(found)

    def _walk(self, folders: list[Path]) -> list[Path]:
        found = list(folders)
        for folder in found:  # grows as we go
            entries = self._list(folder)
            self._count_looks(1 + len(entries))
            found += [Path(e) for e in entries if e.is_dir(follow_symlinks=False)]
        return list(dict.fromkeys(found))

    def _count_looks(self, number: int) -> None:
        self._looks += number
        if self._looks > _MOST_LOOKS:
            raise _TooManyError

    def _scan(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError:  # no folder, or none of ours
            return []
        self._entries += len(found)
        if self._entries > _MOST_ENTRIES:
            raise _TooManyError
        return found


class _TooManyError(Exception):
    """The search has seen as much as it may."""
