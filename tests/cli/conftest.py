"""The real command line, run on manifests of the tests' own, and ways to see what it has left."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from runtime._procfs import Member, Stat, list_pids, read_name, read_stat, send_signal

#: Long enough for any machine: who comes to its end has found a fault.
LIMIT_SEC = 60.0

#: A Python that starts quickly and is not measured.
BARE_PYTHON = (sys.executable, "-S", "-E", "-c")

#: Becomes what its arguments say, as the leader of its terminal's session and foreground group.
LEAD_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"

#: Runs a command for each line that it reads, and says how it ended.
SERVE_COMMANDS = """
import json, os, sys
import runtime.__main__
from runtime import _late
for name in ("run", "check", "graph", "schema"):
    _late.command(name)

def run(arguments, folder, streams, env):
    os.chdir(folder)
    os.environ.update(env)
    for fd, path in enumerate([os.devnull, *streams]):
        opened = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, fd)
        os.close(opened)
    os.environ["XDG_RUNTIME_DIR"] = sys.path[0] = folder
    sys.argv = [runtime.__main__.__file__, *arguments]
    runtime.__main__.main()

for line in iter(sys.stdin.buffer.readline, b""):
    pid = os.fork()
    if pid == 0:
        run(*json.loads(line))  # ends this process, or raises what does
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Left(NamedTuple):
    """A process that is still there: of which unit ("" for runtime and guard), and who it is."""

    unit: str
    pid: int
    command: str


class Feed:
    """What a program writes into one descriptor, read while somebody waits for some of it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ended = False
        self._data = bytearray()

    @property
    def text(self) -> str:
        """All that has been read, with a terminal's line ends made plain."""
        return self._data.decode(errors="replace").replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def read_some(self) -> None:
        try:
            data = os.read(self.fd, 65_536)
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        self._data += data
        self.ended = not data

    def close(self) -> None:
        """Be a reader that has gone: of a pipe that broke, of a terminal that was shut."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.ended = -1, True


class Program:
    """The command line as a process; `pid` is that of its guard, if it has one.

    With *terminal* it leads the session of a terminal of its own, and `out` and `err` are one.
    What it says is read only while somebody waits for a part of it, or for the end.
    """

    def __init__(self, argv: list[str], *, terminal: bool = False, **options: Any) -> None:
        if terminal:
            self.out = self.err = self._open_terminal(argv, options)
        else:
            pipe = subprocess.PIPE
            options = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **options}
            self.process = subprocess.Popen(argv, **options)
            self.out, self.err = (
                Feed(-1 if pipe is None else os.dup(pipe.fileno()))
                for pipe in (self.process.stdout, self.process.stderr)
            )
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()
        self.pid = self.process.pid

    def _open_terminal(self, argv: list[str], options: dict[str, Any]) -> Feed:
        outer, inner = os.openpty()
        termios.tcsetwinsize(inner, (24, 100))
        argv = [*BARE_PYTHON, LEAD_TERMINAL, *argv]
        self.process = subprocess.Popen(argv, stdin=inner, stdout=inner, stderr=inner, **options)
        os.close(inner)
        return Feed(outer)

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def type(self, keys: bytes) -> None:
        os.write(self.out.fd, keys)

    def read_until(self, pattern: str, feed: Feed | None = None) -> re.Match[str]:
        """Return where *pattern* is found in what has been said (on standard error), once it is."""
        where = feed or self.err
        self._read_until(lambda: re.search(pattern, where.text), f"{pattern!r} was never said")
        match = re.search(pattern, where.text)
        assert match is not None
        return match

    def wait(self) -> int:
        """Return how it ended, negative for a signal, once it has and nobody can say any more."""
        feeds = self._open_feeds()
        self._read_until(lambda: all(feed.ended for feed in feeds), "the output has no end")
        wait_gone(self.pid)
        return self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for feed in (self.out, self.err):
            feed.close()

    def _open_feeds(self) -> list[Feed]:
        return [feed for feed in dict.fromkeys((self.out, self.err)) if feed.fd >= 0]

    def _read_until(self, holds: Callable[[], object], otherwise: str) -> None:
        deadline = time.monotonic() + LIMIT_SEC
        while not holds():
            poll = select.poll()
            unread = {feed.fd: feed for feed in self._open_feeds() if not feed.ended}
            for fd in unread:
                poll.register(fd, select.POLLIN)
            left_sec = max(deadline - time.monotonic(), 0)  # below 0 it would wait for ever
            ready = poll.poll(left_sec * 1000) if unread else []
            assert ready, f"{otherwise}\n{self.out.text}\n{self.err.text}"
            for fd, _ in ready:
                unread[fd].read_some()


class Site:
    """A folder with a manifest, the programs that run it, and a mark that all below them carry.

    The processes of the manifest are small shell scripts. ``SAY`` in them tells the test who is
    there, ``echo word >FIFO`` tells it anything else, and ``read x <GO`` waits for `let_go`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Few tests are about HTTP, and to load what serves it takes a second of a cpu.
        self.settings: dict[str, Any] = {"http": "off"}
        self.processes: list[dict[str, Any]] = []
        self._programs: list[Program] = []
        self._mark = f"TEST_MARK={uuid4().hex}"
        self._sayers: list[str] = []
        self._heard: dict[Member, str] = {}
        self._unread = b""
        self._fifos = {word: folder / word.lower() for word in ("FIFO", "GO")}
        for path in self._fifos.values():
            os.mkfifo(path)
        # Open for both reading and writing: no child waits for us, and no end of file comes.
        self._fifo, self._go = (os.open(path, os.O_RDWR) for path in self._fifos.values())

    # What is run.

    def add(self, name: str, code: str, **fields: Any) -> None:
        """Add a process that runs *code* in a shell; it is not restarted if *fields* do not say."""
        self._sayers += [name] * code.count("SAY")
        code = code.replace("SAY", f"echo {name}=$$ >FIFO")
        for word, path in self._fifos.items():
            code = code.replace(word, f'"{path}"')
        defaults = {"path": "sh", "args": ["-c", code], "shutdown_strategy": "do_not_restart"}
        self.processes.append({"name": name, **defaults, **fields})

    def add_python(self, name: str, code: str, **fields: Any) -> None:
        """Add a process that runs *code* in Python, where ``fifo`` is open for writing."""
        path, *args = BARE_PYTHON
        opening = f"import os, signal; fifo = open({str(self._fifos['FIFO'])!r}, 'w', 1)\n"
        fields = {"path": path, "args": [*args, opening + code], **fields}
        self.add(name, "", working_directory=str(self.folder), **fields)

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.yaml"

    def environment(self, changes: Mapping[str, str | None] = _NOTHING) -> dict[str, str]:
        """Return ours with the mark, the run directory and *changes*; None takes one away."""
        mark, _, value = self._mark.partition("=")
        ours = {**os.environ, mark: value, "XDG_RUNTIME_DIR": str(self.folder), **changes}
        return {name: value for name, value in ours.items() if value is not None}

    def start(
        self,
        *arguments: str,
        wrapper: Sequence[str] = (),
        python: Sequence[str] = ("-m", "runtime"),
        env: Mapping[str, str | None] = _NOTHING,
        **options: Any,
    ) -> Program:
        """Start the program, with *arguments*, on what has been added; JSON is YAML as well."""
        if self.processes:
            # As a whole: a program that was started before may be about to read it.
            written = self.manifest.with_suffix(".new")
            written.write_text(json.dumps({**self.settings, "processes": self.processes}))
            written.replace(self.manifest)
        argv = [*wrapper, sys.executable, *python, *arguments, str(self.manifest)]
        program = Program(argv, env=self.environment(env), cwd=self.folder, **options)
        self._programs.append(program)
        return program

    # What is heard of it.

    def hear(self) -> str:
        """Return the next thing that a child tells: a word, or its name, whose pid is noted."""
        while b"\n" not in self._unread:
            wait_readable(self._fifo)
            self._unread += os.read(self._fifo, 65_536)
        line, _, self._unread = self._unread.partition(b"\n")
        word, _, pid = line.decode().partition("=")
        stat = read_stat(int(pid)) if pid else None
        if stat is not None:
            self._heard[stat.member] = word
        return word

    def hear_everyone(self) -> None:
        """Return once everybody is there who says so."""
        missing = list(self._sayers)
        while missing:
            missing.remove(self.hear())

    def heard_all(self) -> bool:
        """Return whether nobody tells anything more, at this moment."""
        return not self._unread and not select.select([self._fifo], [], [], 0)[0]

    def pid_of(self, name: str) -> int:
        """Return the pid of the one who said last that this is its name."""
        return [member.pid for member, heard in self._heard.items() if heard == name][-1]

    def let_go(self) -> None:
        """Let one child go on that waits."""
        os.write(self._go, b"\n")

    @staticmethod
    def wait_until(holds: Callable[[], bool]) -> None:
        """Return once that is so which nobody can tell of: what a file says, or the kernel."""
        deadline = time.monotonic() + LIMIT_SEC
        while not holds():
            assert time.monotonic() < deadline, "it never was"
            time.sleep(0.005)

    def read_lock(self) -> dict[str, Any]:
        """Return what the lock in the run directory says."""
        (lock,) = self.folder.glob("trio-runtime/*/lock")
        return json.loads(lock.read_text().partition("\n")[0])

    @property
    def runtime_pid(self) -> int:
        return int(self.read_lock()["pid"])

    # What is left of it.

    def find_left(self) -> list[Left]:
        """Return all that is still there: whoever carries the mark, or had told us its pid."""
        left = {
            member: name
            for member, name in self._heard.items()
            if (stat := read_stat(member.pid)) is not None and stat.alive and stat.member == member
        }
        left |= {stat.member: unit for stat, unit in list_marked(self._mark)}
        return [Left(unit, pid, read_name(pid)) for (pid, _), unit in left.items()]

    def close(self) -> None:
        """End everything, for tests that have failed."""
        for program in self._programs:
            program.close()
        deadline = time.monotonic() + LIMIT_SEC
        while (left := self.find_left()) and time.monotonic() < deadline:
            for pid in (each.pid for each in left):
                kill(pid)
        os.close(self._fifo)
        os.close(self._go)


def list_marked(mark: str) -> Iterator[tuple[Stat, str]]:
    """Yield every process that has *mark* in its environment, and the unit that it belongs to."""
    for pid in list_pids():
        with suppress(OSError):
            entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            stat = read_stat(pid)
            if mark in entries and stat is not None:
                variables = dict(entry.partition("=")[::2] for entry in entries)
                yield stat, variables.get("RUNTIME_UNIT", "")


def kill(pid: int) -> None:
    stat = read_stat(pid)
    if stat is not None:
        send_signal(stat.member, signal.SIGKILL)


def wait_readable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(LIMIT_SEC * 1000), "nothing came"


def wait_gone(pid: int) -> None:
    """Return once process *pid*, of whomever, has ended; it may be a zombie then."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            wait_readable(pidfd)
        finally:
            os.close(pidfd)


@contextmanager
def open_site(folder: Path) -> Generator[Site]:
    """Have a place to run the program in; nothing of it outlives the block."""
    site = Site(folder)
    try:
        yield site
    finally:
        site.close()


class Ask:
    """Calls a command that runs nothing, in *folder*, and returns how it ended and what it said."""

    def __init__(self, folder: Path, loaded: Loaded) -> None:
        self.folder = folder
        self._loaded = loaded

    def __call__(
        self, *arguments: str | Path, env: Mapping[str, str] = _NOTHING
    ) -> subprocess.CompletedProcess[str]:
        return self._loaded(*arguments, cwd=self.folder, env=env)

    def anew(
        self, *arguments: str | Path, env: Mapping[str, str] = _NOTHING
    ) -> subprocess.CompletedProcess[str]:
        """Do the same with a program that loads everything itself."""
        return subprocess.run(
            [sys.executable, "-m", "runtime", *arguments],
            check=False,
            cwd=self.folder,
            env={**os.environ, "XDG_RUNTIME_DIR": str(self.folder), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT_SEC,
        )

    def write(self, *processes: Mapping[str, Any], name: str = "m.yaml", **settings: Any) -> Path:
        """Return the path of a manifest that says this, with a shell as the program of each."""
        path = self.folder / name
        entries = [{"path": "sh", **process} for process in processes]
        path.write_text(json.dumps({**settings, "processes": entries}))
        return path


class Loaded:
    """The command line in a process of its own for each call, without what loading it takes.

    One process has loaded all that the commands need, and is forked for each of them. What it runs
    is the program as `python -m runtime` does, on arguments, folder and streams of its own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE_COMMANDS],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(
        self, *arguments: str | Path, cwd: Path, env: Mapping[str, str] = _NOTHING
    ) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with TemporaryFile() as out, TemporaryFile() as err:
            streams = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
            argv = [*map(str, arguments)]
            call = json.dumps([argv, str(cwd), streams, dict(env)])
            self._process.stdin.write(call.encode() + b"\n")
            self._process.stdin.flush()
            wait_readable(self._process.stdout.fileno())
            status = int(self._process.stdout.readline())
            said = [os.pread(file.fileno(), 1 << 24, 0).decode() for file in (out, err)]
        return subprocess.CompletedProcess(argv, status, *said)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


OpenLoaded = Callable[[Mapping[str, str]], AbstractContextManager[Loaded]]


@pytest.fixture(scope="session")
def open_loaded() -> OpenLoaded:
    """Have the command line loaded for the length of a block, in this environment."""

    @contextmanager
    def open_in(environment: Mapping[str, str]) -> Generator[Loaded]:
        loaded = Loaded(environment)
        try:
            yield loaded
        finally:
            loaded.close()

    return open_in


@pytest.fixture(scope="package")
def commands(open_loaded: OpenLoaded) -> Iterator[Loaded]:
    """The command line, loaded once for all tests of this folder that ask it.

    It is a child of ours: other folders look whether a test of theirs has left one.
    """
    with open_loaded(os.environ) as made:
        yield made


@pytest.fixture
def ask(tmp_path: Path, commands: Loaded) -> Ask:
    """Commands that run nothing, called in a folder of the test's own."""
    return Ask(tmp_path, commands)


OpenSite = Callable[..., AbstractContextManager[Site]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A place to run the program in; nothing of it outlives the test."""
    with open_site(tmp_path) as made:
        yield made


@pytest.fixture
def public_site() -> Iterator[Site]:
    """A place that every user may come to, and tell us something there."""
    with TemporaryDirectory() as name, open_site(Path(name)) as made:
        made.folder.chmod(0o755)
        (made.folder / "fifo").chmod(0o666)
        yield made


@pytest.fixture(scope="module")
def open_new_site(tmp_path_factory: pytest.TempPathFactory) -> OpenSite:
    """Open a `Site` for as long as the caller likes, in a folder of its own or the caller's."""
    return lambda folder=None: open_site(folder or tmp_path_factory.mktemp("site"))
