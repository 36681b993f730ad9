"""The examples do what they say, as they are printed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """The quickstart in a folder of its own, on a port that is free."""
    folder = tmp_path / "quickstart"
    shutil.copytree(EXAMPLES / "quickstart", folder, ignore=shutil.ignore_patterns("public"))
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("8765", str(free_port())))
    return manifest


@contextmanager
def started(manifest: Path) -> Generator[subprocess.Popen[str]]:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(manifest.parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-m", "runtime", manifest],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def test_the_quickstart_starts_in_order_recovers_and_stops(quickstart: Path) -> None:
    lines: list[str] = []
    with started(quickstart) as program:
        assert program.stdout is not None
        for line in program.stdout:
            lines.append(line.rstrip())
            if sum("moody is ready" in each for each in lines) == 2:
                break
        program.send_signal(signal.SIGINT)
        lines += program.stdout.read().splitlines()
        assert program.wait(30) == 0
    text = "\n".join(lines)
    assert text.index("prepare completed") < text.index("web is ready")
    assert text.index("web is ready") < text.index("worker is ready")
    assert "200: <h1>It runs.</h1>" in text
    assert "moody exited with 3" in text
    assert "the worker has put its tools away" in text
