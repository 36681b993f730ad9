"""The examples do what they say, as they are printed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


#: Long enough for any machine: who comes to its end has found a fault.
LIMIT_SEC = 60


class Example:
    """A copy of a folder of examples, on ports that are free, and one program of it that runs."""

    def __init__(self, name: str, folder: Path, ports: Mapping[int, int]) -> None:
        self.folder, self.ports = folder / name, ports
        self.lines: list[str] = []
        shutil.copytree(EXAMPLES / name, self.folder, ignore=shutil.ignore_patterns("public"))
        for manifest in self.folder.glob("*.yaml"):
            text = manifest.read_text()
            for old, new in ports.items():
                text = text.replace(str(old), str(new))
            manifest.write_text(text)

    @contextmanager
    def run(self, *command: str) -> Generator[subprocess.Popen[str]]:
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.folder.parent)}
        with subprocess.Popen(
            [sys.executable, "-u", *command],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as self.program:
            try:
                yield self.program
            finally:
                self.program.kill()

    def read_until(self, words: str, times: int = 1) -> None:
        """Return when *words* have been in so many lines."""
        assert self.program.stdout is not None
        while sum(words in line for line in self.lines) < times:
            line = self.program.stdout.readline()
            assert line, f"{words!r} was not said {times} times: {self.lines}"
            self.lines.append(line.rstrip())

    def stop(self) -> str:
        """Interrupt it, and return all that it has said."""
        assert self.program.stdout is not None
        self.program.send_signal(signal.SIGINT)
        self.lines += self.program.stdout.read().splitlines()
        assert self.program.wait(LIMIT_SEC) == 0
        return "\n".join(self.lines)

    def get(self, port: int, path: str) -> Any:
        """Return what is answered over HTTP."""
        with urlopen(f"http://127.0.0.1:{self.ports[port]}/{path}", timeout=LIMIT_SEC) as answer:
            return json.load(answer)


@pytest.fixture
def example(tmp_path: Path, free_port: Callable[[], int]) -> Callable[..., Example]:
    """Copy a folder of examples; each of the ports gives way to one that is free."""
    return lambda name, *ports: Example(name, tmp_path, {port: free_port() for port in ports})


def in_order(text: str, *words: str) -> bool:
    places = [text.rindex(each) for each in words]
    return places == sorted(places)


def test_the_quickstart_starts_in_order_recovers_and_stops(
    example: Callable[..., Example],
) -> None:
    quickstart = example("quickstart", 8765)
    with quickstart.run("-m", "runtime", "manifest.yaml"):
        quickstart.read_until("200: <h1>It runs.</h1>")
        quickstart.read_until("moody is ready", times=2)
        text = quickstart.stop()
    assert in_order(text, "prepare completed", "web is ready", "worker is ready")
    assert "moody exited with 3" in text
    assert "the worker has put its tools away" in text


# --- services -------------------------------------------------------------------------------------

FIND_PID = re.compile(r"^db +running +(\d+)")


def test_a_service_between_two_processes_starts_and_stops_between_them(
    example: Callable[..., Example],
) -> None:
    services = example("services", 8771, 8772, 8773)
    with services.run("-m", "runtime", "manifest.yaml"):
        services.read_until("api is ready")
        assert in_order("\n".join(services.lines), "db is ready", "cache is ready", "api is ready")
        for _ in range(2):
            assert services.get(8773, "apple") == {"name": "apple", "price": "3"}
        assert services.get(8773, "plum") == {"name": "plum", "price": "unknown"}
        text = services.stop()
    assert text.count("asked for apple") == 1
    assert "closed; 2 items were known" in text


def test_what_depends_on_a_process_that_crashes_is_restarted_after_it_in_order(
    example: Callable[..., Example],
) -> None:
    services = example("services", 8771, 8772, 8773)
    with services.run("-m", "runtime", "manifest.yaml"):
        services.read_until("db  ")
        found = next(filter(None, map(FIND_PID.match, services.lines)))
        os.kill(int(found[1]), signal.SIGKILL)
        services.read_until("api is ready", times=2)
        assert services.get(8773, "pear") == {"name": "pear", "price": "4"}
        text = services.stop()
    assert in_order(text, "closed; 0 items", "db is ready", "cache is ready", "api is ready")


def test_a_library_written_on_anyio_works_in_a_service(example: Callable[..., Example]) -> None:
    services = example("services", 8774)
    with services.run("-m", "runtime", "watch.yaml"):
        services.read_until("look 2: 200")
        text = services.stop()
    assert in_order(text, "web is ready", "watch is ready", "look 2: 200")
    assert '"GET / HTTP/1.1" 200' in text


def test_a_tcp_server_as_a_service_lets_its_clients_finish(
    example: Callable[..., Example], free_port: Callable[[], int]
) -> None:
    services, port = example("services"), free_port()
    with services.run("echo.py", str(port)):
        services.read_until("echo is running")
        address = ("127.0.0.1", port)
        with socket.create_connection(address) as client:
            client.sendall(b"one")
            assert client.recv(3) == b"one"
            services.program.send_signal(signal.SIGINT)
            services.read_until("waiting for 1 clients")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            client.sendall(b"two")
            assert client.recv(3) == b"two"
        services.read_until("echo is stopped")
        assert services.program.wait(LIMIT_SEC) == 0


# --- control --------------------------------------------------------------------------------------


def test_a_script_asks_the_tree_and_stops_it(example: Callable[..., Example]) -> None:
    control = example("control")

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "control.py", *arguments]
        return subprocess.run(
            command,
            check=False,
            cwd=control.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_SEC,
        )

    with control.run("-m", "runtime", "manifest.yaml"):
        control.read_until("tcp is ready")
        control.read_until("api is ready")
        first = ask().stdout.splitlines()
        assert [line.split()[:2] for line in first] == [["db", "running"], ["api", "running"]]
        second = ask("restart", "api").stdout.splitlines()
        assert second[0].split()[:2] == ["api", "running"]
        assert second[0] != first[1]
        wrong = ask("restart", "apo")
        assert (wrong.returncode, wrong.stderr) == (
            1,
            "there is no unit 'apo'; did you mean 'api'?\n",
        )
        stopped = ask("shutdown").stdout.splitlines()
        assert [line.split() for line in stopped] == [["db", "stopped"], ["api", "stopped"]]
        assert control.program.wait(LIMIT_SEC) == 0
        text = control.stop()
    # What stops last, the control server and the HTTP face, ends in whatever order.
    assert re.search(r"stopped: api, db, (http, )?tcp(, http)?\b", text)


# --- images, secrets ------------------------------------------------------------------------------


def test_thumbnails_are_made_in_worker_processes_and_put_on_a_page(
    example: Callable[..., Example],
) -> None:
    images = example("images")
    pictures = images.folder / "pictures"
    pictures.mkdir()
    for number in range(4):
        Image.new("RGB", (400, 100 + number), (number * 50, 0, 0)).save(pictures / f"{number}.jpg")
    (pictures / "notes.txt").write_text("no picture")
    with images.run("-m", "runtime", "manifest.yaml"):
        images.read_until("made 4 thumbnails")
        images.stop()
    made = sorted((images.folder / "thumbnails").glob("*.png"))
    assert [each.name for each in made] == [f"{number}.jpg.png" for number in range(4)]
    for each in made:
        with Image.open(each) as image:
            assert image.width == 128
    index = (images.folder / "thumbnails" / "index.html").read_text()
    assert re.findall(r'src="(.*?)"', index) == [each.name for each in made]


def test_a_secret_reaches_its_process_and_is_hidden_where_that_prints_it(
    example: Callable[..., Example],
) -> None:
    secrets = example("secrets")
    with secrets.run("-m", "runtime", "manifest.yaml") as program:
        assert program.stdout is not None
        text = program.stdout.read()
        assert program.wait(LIMIT_SEC) == 0
    assert "the key has 21 characters" in text
    assert "asking with the key ***" in text
    assert "correct-horse" not in text
