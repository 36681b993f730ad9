"""The contributor's guide: `nox --list` says what can be done here, and `nox` does what CI does.

Every session has a virtual environment of its own, filled from the dependency groups in
pyproject.toml, so a fresh clone needs Python 3.11, pip, and nothing else.
"""

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2026.4.10"
nox.options.sessions = ["tests", "types", "lint", "docs"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def install_group(session: nox.Session, group: str, *, project: bool = True) -> None:
    """Install the dependency *group*, and the project in editable form unless told otherwise."""
    editable = ("--editable", str(ROOT)) if project else ()
    session.install(*editable, *nox.project.dependency_groups(PYPROJECT, group))


def run_tests(session: nox.Session, program: str, *options: str) -> None:
    """Run the tests side by side by *program*; *options*, and what follows --, are pytest's."""
    install_group(session, "test")
    # Where the environment forbids it, every child would compile all of ours anew.
    env = {"PYTHONDONTWRITEBYTECODE": ""}
    # Tests wait for their children as often as they work: two for each core, up to a few.
    workers = str(min(2 * (os.cpu_count() or 1), 8))
    # A worker that has died is not replaced: pytest-xdist may wait for ever after that (its #1378).
    side_by_side = ("-n", workers, "--dist", "loadgroup", "--max-worker-restart", "0")
    # Hypothesis makes a table of all characters where it has none: once, not in a test of each.
    make_table = "from hypothesis import strategies; strategies.text().validate()"
    session.run("python", "-c", make_table)
    session.run(
        *program.split(), "-m", "pytest", *side_by_side, *options, *session.posargs, env=env
    )


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests side by side, without the slow ones; arguments after -- go to pytest."""
    run_tests(session, "python", *([] if session.posargs else ["-m", "not slow"]))


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes: thousands of cycles, the bench, an installation by pip."""
    run_tests(session, "python", "-m", "slow")


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests under coverage, child processes included, which takes twice as long."""
    install_group(session, "test")
    session.run("coverage", "erase")
    run_tests(session, "coverage run")
    session.run("coverage", "combine", "--quiet")
    # A part of the tests covers a part of the code: there the report is for information.
    session.run("coverage", "report", *(["--fail-under=0"] if session.posargs else []))


@nox.session
def picture(session: nox.Session) -> None:
    """Take the picture of the status page in the docs anew; takes Chromium."""
    install_group(session, "test")
    session.run("pytest", "-q", "tests/runtime_http/test_page.py", "-k", "picture")
    shutil.copy(ROOT / ".pictures" / "page.png", ROOT / "docs" / "images" / "page.png")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, and that the public names are typed completely."""
    install_group(session, "types")
    session.run("mypy")
    session.run("mypy", "noxfile.py", "tests/tasks/typed_calls.py")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "runtime", "--ignoreexternal")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff, and that imports go down the floors of the house."""
    # Nothing here runs our code, so the project itself need not be installed.
    install_group(session, "lint", project=False)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache", "--no-logo", env={"PYTHONPATH": "http"})


@nox.session
def docs(session: nox.Session) -> None:
    """Check that every relative link in the Markdown files leads to a file and a heading."""
    # The docs are read where they lie, in the repository: README and docs/ link to each other, to
    # examples/ and to the source. A site generator (MkDocs is no longer maintained; ProperDocs,
    # Zensical) sees docs/ alone and calls such links broken; rumdl checks them all, headings
    # included, is one binary wheel, and is released every few weeks.
    install_group(session, "docs", project=False)
    session.run("rumdl", "check", "--no-cache", ".")


@nox.session
def reference(session: nox.Session) -> None:
    """Write docs/manifest-reference.md again, from the models that read a manifest."""
    session.install("--editable", str(ROOT))
    session.run(
        *("python", "-m", "runtime", "schema", "--format", "markdown"),
        *("--output", "docs/manifest-reference.md"),
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Measure beside the peers, and write the README's tables; arguments after -- replace that."""
    install_group(session, "bench")
    # Interrupted, it ends whatever the peers have started, and needs a moment for that.
    session.run(
        *("python", "-m", "bench", *(session.posargs or ["--write", "README.md"])),
        interrupt_timeout=30,
        terminate_timeout=30,
    )
    if not session.posargs:
        session.run(
            *("python", "-m", "bench.queues", "--write", "README.md"),
            interrupt_timeout=30,
            terminate_timeout=30,
        )
