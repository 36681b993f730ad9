"""Finds the program that a manifest names."""

import os
import shutil
from pathlib import Path

_WILDCARDS = "*?["


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
    anchor = Path(path.anchor) if path.is_absolute() else base
    pattern = str(path.relative_to(path.anchor) if path.is_absolute() else path)
    try:
        matches = sorted(anchor.glob(pattern))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no valid wildcard: {error}") from error
    if len(matches) != 1:
        found = f"{len(matches)} files match" if matches else "nothing matches"
        raise ValueError(f"{found} {str(path)!r} in {anchor}; it must be exactly one")
    return matches[0]
