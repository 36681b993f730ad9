"""The program that a manifest names is found by path, by wildcard, or on PATH."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from runtime.process._executable import find_executable


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name in ("bin/tool", "bin/tool-1.2", "here"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "plain").write_text("")
    (tmp_path / "bin" / "link").symlink_to(tmp_path / "bin" / "tool")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("bin/tool", "bin/tool"),
        ("./bin/../bin/tool", "bin/tool"),
        ("here", "here"),
        ("bin/tool-*", "bin/tool-1.2"),
        ("b?n/too[l]", "bin/tool"),
        ("**/tool-1*", "bin/tool-1.2"),
    ],
)
def test_a_relative_path_starts_at_the_base(base: Path, path: str, found: str) -> None:
    assert find_executable(Path(path), base) == (base / found, False)


def test_absolute_paths_and_wildcards_stay_where_they_are(base: Path) -> None:
    for path in (base / "bin/tool", base / "bin/tool-*"):
        there, on_path = find_executable(path, Path("/nowhere"))
        assert (there.parent, on_path) == (base / "bin", False)


def test_a_symbolic_link_is_not_resolved(base: Path) -> None:
    assert find_executable(Path("bin/link"), base) == (base / "bin/link", False)


def test_a_bare_name_is_looked_up_on_path(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"/nowhere:{base / 'bin'}")
    assert find_executable(Path("tool"), base) == (base / "bin/tool", True)
    assert find_executable(Path("here"), base) == (base / "here", False)
    assert find_executable(Path("link"), base) == (base / "bin/link", True)
    with pytest.raises(ValueError, match=r"there is no 'tool' in .* nor on PATH"):
        find_executable(Path("tool"), base, search="/nowhere")
    other = base / "other"
    other.mkdir()
    (other / "tool").symlink_to(base / "here")
    assert find_executable(Path("tool"), base, search=str(other)) == (other / "tool", True)


def test_a_relative_entry_of_path_gives_an_absolute_path(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base)
    assert find_executable(Path("tool"), Path("/"), search="bin") == (base / "bin/tool", True)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing", "there is no 'missing' in {base} nor on PATH"),
        ("bin/missing", "there is no program {base}/bin/missing"),
        ("/no/such/program", "there is no program /no/such/program"),
        ("bin", "{base}/bin is a folder, not a program"),
        (".", "{base} is a folder, not a program"),
        ("plain", "{base}/plain is not executable; `chmod +x` it"),
        ("./plain", "{base}/plain is not executable; `chmod +x` it"),
        ("bin/tool*", "2 files match 'bin/tool*' in {base}; it must be exactly one"),
        ("bin/x*", "nothing matches 'bin/x*' in {base}; it must be exactly one"),
        ("/no/such/*", "nothing matches '/no/such/*' in /; it must be exactly one"),
        ("bin/**tool", "'bin/**tool' is no valid wildcard: "),
    ],
)
def test_what_cannot_be_found_is_told_with_the_remedy(base: Path, path: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem.format(base=base))):
        find_executable(Path(path), base, search=os.defpath)


def test_a_wildcard_walks_no_disk(base: Path) -> None:
    many = base / "many"
    many.mkdir()
    for number in range(101):
        folder = many / str(number)
        folder.mkdir()
        for name in range(100):
            (folder / str(name)).touch()
    for path in ("many/*/tool", "many/**/tool", "**/tool-9"):
        expected = f"'{path}' leads to more than 10000 files; name more of it"
        if path == "many/*/tool":  # only the folders are looked through
            expected = f"nothing matches '{path}'"
        with pytest.raises(ValueError, match=re.escape(expected)):
            find_executable(Path(path), base)
    (base / "secret").mkdir(mode=0)
    with pytest.raises(ValueError, match="2 files match"):
        find_executable(Path("b*/tool*"), base)


def test_a_wildcard_for_folders_does_not_follow_links_in_circles(base: Path) -> None:
    (base / "bin" / "up").symlink_to(base)
    assert find_executable(Path("**/here"), base) == (base / "here", False)
