"""The program that a manifest names is found by path, by wildcard, or on PATH."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from runtime.process._executable import Finder


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
    assert Finder().executable(Path(path), base) == (base / found, False)


def test_absolute_paths_and_wildcards_stay_where_they_are(base: Path) -> None:
    for path in (base / "bin/tool", base / "bin/tool-*"):
        there, on_path = Finder().executable(path, Path("/nowhere"))
        assert (there.parent, on_path) == (base / "bin", False)


def test_a_symbolic_link_is_not_resolved(base: Path) -> None:
    assert Finder().executable(Path("bin/link"), base) == (base / "bin/link", False)


def test_a_bare_name_is_looked_up_on_path(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", f"/nowhere:{base / 'bin'}")
    assert Finder().executable(Path("tool"), base) == (base / "bin/tool", True)
    assert Finder().executable(Path("here"), base) == (base / "here", False)
    assert Finder().executable(Path("link"), base) == (base / "bin/link", True)
    with pytest.raises(ValueError, match=r"there is no 'tool' in .* nor on PATH"):
        Finder().executable(Path("tool"), base, search="/nowhere")
    other = base / "other"
    other.mkdir()
    (other / "tool").symlink_to(base / "here")
    assert Finder().executable(Path("tool"), base, search=str(other)) == (other / "tool", True)


def test_a_relative_entry_of_path_gives_an_absolute_path(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base)
    assert Finder().executable(Path("tool"), Path("/"), search="bin") == (base / "bin/tool", True)


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
        ("bin/**tool", "'**tool' is no valid wildcard: '**' must stand for whole folders"),
    ],
)
def test_what_cannot_be_found_is_told_with_the_remedy(base: Path, path: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem.format(base=base))):
        Finder().executable(Path(path), base, search=os.defpath)


def test_a_wildcard_walks_no_disk(base: Path) -> None:
    many = base / "many"
    many.mkdir()
    for number in range(101):
        folder = many / str(number)
        folder.mkdir()
        for name in range(100):
            (folder / str(name)).touch()
    too_many = "leads to too many files; name more of its folders"
    for path in ("many/*/x*", "many/**/tool", "**/tool-9"):
        with pytest.raises(ValueError, match=re.escape(f"'{path}' {too_many}")):
            Finder().executable(Path(path), base)
    assert Finder().executable(Path("bin/tool-*"), base) == (base / "bin/tool-1.2", False)


def test_all_wildcards_of_a_manifest_have_one_bound(base: Path) -> None:
    for number in range(1000):
        (base / "bin" / f"x{number}").touch()
    find = Finder()
    for _ in range(49):
        assert find.executable(Path("bin/tool-*"), base) == (base / "bin/tool-1.2", False)
    with pytest.raises(ValueError, match="too many files"):
        find.executable(Path("bin/tool-*"), base)


def test_a_folder_that_cannot_be_read_has_no_match(base: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing matches 'here/\*'"):
        Finder().executable(Path("here/*"), base)


def test_a_wildcard_for_folders_does_not_follow_links_in_circles(base: Path) -> None:
    (base / "bin" / "up").symlink_to(base)
    assert Finder().executable(Path("**/here"), base) == (base / "here", False)
