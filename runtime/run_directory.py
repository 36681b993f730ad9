"""The run directory: a folder per tree, and in it the lock that says that the tree is there.

The lock is a ``flock`` on a file that is never removed, whose one line of JSON says who has it.
It belongs to the open file and not to a process: once the guard holds the descriptor as well
(`runtime.guard.Guard.hold`), the lock lasts as long as anything of the tree does.

What the lock cannot tell is a tree whose runtime *and* guard were killed; its processes run on with
nobody above them. They are known by a mark in their environment, ``RUNTIME_TREE=<tree id>``, and by
the tree's roster, and are ended before a new tree starts. The first half of a tree's id stands for
the lock's inode, so that whoever has the lock knows: no live tree bears this mark, not even in
another container.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_urlsafe
from signal import SIGKILL
from stat import S_ISREG
from typing import Final, NamedTuple, final

from runtime._leftovers import Leftovers
from runtime._procfs import TREE_VARIABLE, Member, kill_groups, read_name, read_stat, send_signal
from runtime._roster import Roster, read_roster

SWEEP_SEC: Final = 5.0
"""How long the leftovers of a former tree may take to be gone once they were killed."""

TOKEN_FILE: Final = "token"  # noqa: S105 - a name
"""The file of the token that requests have to bring along."""
_LONGEST_TOKEN: Final = 4096
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]{16,4096}=*")  # RFC 6750, section 2.1
_HAS_NONE: Final = (
    "it must have one line, of at least 16 letters, digits and -._~+/"
    " (`openssl rand -hex 32` makes one)"
)

CONTROL_FILE: Final = "control"
"""The file that says where the control server listens."""

HTTP_FILE: Final = "http"
"""The file that says where HTTP is served: ``http://HOST:PORT``, or ``unix:PATH``."""

_LOCK_POLL_SEC: Final = 0.05  # flock cannot be waited for with a limit
_SWEEP_POLL_SEC: Final = 0.01


class RunDirectoryError(Exception):
    """The base of what keeps a tree from having its run directory."""


class UnusableRunDirectoryError(RunDirectoryError):
    """The folder cannot be made, or others may write to it."""

    path: Path
    problem: str

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"the run directory {self.path} cannot be used: {self.problem}"


class TokenFileError(RunDirectoryError):
    """The file that a token is to be taken from has none."""

    path: Path
    problem: str

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"no token can be taken from {self.path}: {self.problem}"


class AlreadyRunningError(RunDirectoryError):
    """Another tree has the lock; *pid* is its runtime's, or None if the lock does not say."""

    path: Path
    pid: int | None
    manifest: str | None
    state: str

    def __init__(
        self, path: Path, pid: int | None, manifest: str | None = None, state: str = "running"
    ) -> None:
        super().__init__(path, pid, manifest, state)
        self.path, self.pid, self.manifest, self.state = path, pid, manifest, state

    def __str__(self) -> str:
        what = f"{self.manifest or 'a runtime'} is {self.state} in {self.path} already"
        if self.pid is None:
            return what
        if self.state == "running":
            return f"{what}, as process {self.pid}; to stop it: kill {self.pid}"
        return f"{what}, as process {self.pid}; not to wait for it: kill -9 {self.pid}"


class LeftoversError(RunDirectoryError):
    """Processes of a former tree, given as ``name (pid)``, could not be killed."""

    path: Path
    survivors: tuple[str, ...]

    def __init__(self, path: Path, survivors: Sequence[str]) -> None:
        self.path, self.survivors = path, tuple(survivors)
        super().__init__(path, self.survivors)

    def __str__(self) -> str:
        survivors = ", ".join(self.survivors)
        return f"a former runtime left processes in {self.path} that cannot be killed: {survivors}"


class _Occupant(NamedTuple):
    """Who has the lock, as its line says."""

    pid: int
    start_ticks: int | None  #: None where there is no /proc
    guard_pid: int | None
    state: str  #: "running", or "stopping" once the end is certain
    manifest: str | None

    @property
    def running(self) -> bool:
        """Whether the runtime that wrote the line is still there, with no end in sight."""
        if self.state != "running" or self.start_ticks is None:
            return self.state == "running"
        stat = read_stat(self.pid)
        return stat is not None and stat.alive and stat.start_ticks == self.start_ticks


@final
class RunDirectory:
    """A run directory that is ours for now; only `open_run_directory` makes one."""

    def __init__(self, path: Path, lock: int, occupant: _Occupant) -> None:
        self.path: Final = path
        """The folder, with no symbolic links in it."""
        self.tree_id: Final = f"{_identify(lock)}-{os.urandom(4).hex()}"
        """What every process of this tree has in its environment as ``RUNTIME_TREE``."""
        self.roster: Final = Roster(path)
        """Where every process of this tree is to be noted, for a next one to find it."""
        self._lock = lock
        self._occupant = occupant
        _write_occupant(lock, occupant)

    def fileno(self) -> int:
        """Return the lock's descriptor, for the guard to hold."""
        return self._lock

    def note_stopping(self) -> None:
        """Say in the lock that this tree is on its way out, so that a next one waits for it.

        May be called more than once.
        """
        _write_occupant(self._lock, self._occupant._replace(state="stopping"))

    def end_leftovers(self, say: Callable[[str], object]) -> None:
        """SIGKILL every process that was started below this run directory, ourselves spared.

        For the end of a tree whose guard has died. Raises `LeftoversError`; blocks for a while.
        """
        mark = f"{TREE_VARIABLE}={_identify(self._lock)}-".encode()
        _end_leftovers(self.path, Leftovers(mark, read_roster(self.path)), say)


def default_run_directory(manifest: Path) -> Path:
    """Return where the tree of *manifest* has its run directory if nothing else is said.

    That is ``trio-runtime/<manifest's stem>-<hash of its path>`` in ``$XDG_RUNTIME_DIR``, else in
    ``$XDG_STATE_HOME``, else in ``~/.local/state``. Raises `RunDirectoryError` if there is no home.
    """
    path = manifest.resolve()
    name = f"{path.stem}-{_hash(os.fsencode(path))}"
    for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        base = Path(os.environ.get(variable, ""))
        if base.is_absolute():  # the specification tells us to ignore others
            return base / "trio-runtime" / name
    try:
        return Path.home() / ".local" / "state" / "trio-runtime" / name
    except RuntimeError as error:
        problem = "this user has no home; name a run_directory"
        raise UnusableRunDirectoryError(Path("~/.local/state"), problem) from error


@contextmanager
def open_run_directory(
    path: Path,
    *,
    manifest: Path | None = None,
    guard_pid: int | None = None,
    wait_sec: float = 30.0,
    say: Callable[[str], object] | None = None,
) -> Generator[RunDirectory]:
    """Have the run directory *path*, made if need be, to ourselves as long as the block lasts.

    While another tree runs there, raises `AlreadyRunningError` at once; while one is stopping, or
    its guard is cleaning up after it, waits for it, *wait_sec* at the most. Then ends what a tree
    left there whose runtime and guard were both killed, or raises `LeftoversError`; ourselves and
    who started us are spared. *say* is told, in a sentence, of the wait and of what was ended.

    Raises `UnusableRunDirectoryError` for a folder that is not ours or that others may write to.
    It blocks, and is meant for the time before there is an event loop.
    """
    say = say or (lambda _: None)
    folder = _make_folder(path)
    with _open_lock(folder) as lock:
        _take_lock(folder, lock, wait_sec, say)
        pid = os.getpid()
        stat = read_stat(pid)
        occupant = _Occupant(
            pid=pid,
            start_ticks=None if stat is None else stat.start_ticks,
            guard_pid=guard_pid,
            state="running",
            manifest=None if manifest is None else str(manifest),
        )
        directory = RunDirectory(folder, lock, occupant)
        try:
            directory.end_leftovers(say)
            _forget_former(folder)
            yield directory
        finally:
            _forget_former(folder)
            directory.note_stopping()
            directory.roster.close()


def is_taken(folder: Path) -> bool:
    """Return whether a tree has the run directory *folder*, or is being cleaned up after there."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def read_token(folder: Path) -> str:
    """Return the token of the run directory *folder*: a secret that is made for who is first.

    It lies in a file of mode 0600 for as long as the tree has the folder, and nowhere else. Raises
    `UnusableRunDirectoryError`.
    """
    path = folder / TOKEN_FILE
    try:
        with suppress(FileExistsError):
            if not path.exists():
                _write_new(folder, TOKEN_FILE, token_urlsafe(), os.link)  # whoever comes second...
        return path.read_text().strip()  # ...reads what the first one has written
    except OSError as error:
        raise UnusableRunDirectoryError(folder, f"{TOKEN_FILE}: {error.strerror}") from error


def take_token(folder: Path, file: Path) -> None:
    """Let the token of the run directory *folder* be what stands in *file*.

    To be called before anybody reads it. Raises `TokenFileError`, `UnusableRunDirectoryError`.
    """
    try:
        # A named pipe would be opened when somebody writes into it, and a terminal when it likes.
        with open(file, "rb", opener=_open_at_once) as opened:
            if not S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise TokenFileError(file, "it is no regular file; name one that has the token")
            token = opened.read(_LONGEST_TOKEN + 1).strip()
    except OSError as error:
        raise TokenFileError(file, error.strerror or str(error)) from error
    if not _TOKEN.fullmatch(token):
        raise TokenFileError(file, _HAS_NONE)
    note_in_file(folder, TOKEN_FILE, token.decode())


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def note_in_file(folder: Path, name: str, text: str) -> None:
    """Write *text* as the one line of a file in *folder*, for us only; whole at any moment.

    Raises `UnusableRunDirectoryError`.
    """
    try:
        _write_new(folder, name, text, os.replace)
    except OSError as error:
        raise UnusableRunDirectoryError(folder, f"{name}: {error.strerror}") from error


def forget_file(folder: Path, name: str) -> None:
    """Remove a file in *folder*, if there is one."""
    with suppress(OSError):
        (folder / name).unlink()


def _write_new(folder: Path, name: str, text: str, place: Callable[[Path, Path], None]) -> None:
    temporary = folder / f".{name}.{token_urlsafe(6)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.open(temporary, flags, mode=0o600)
    try:
        os.fchmod(file, 0o600)  # where a umask took of that
        os.write(file, f"{text}\n".encode())
        place(temporary, folder / name)
    finally:
        os.close(file)
        with suppress(FileNotFoundError):
            temporary.unlink()


def _forget_former(folder: Path) -> None:
    for name in (TOKEN_FILE, CONTROL_FILE, HTTP_FILE):
        forget_file(folder, name)


def _make_folder(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = path.resolve()
        status = folder.stat()
    except OSError as error:
        raise UnusableRunDirectoryError(path, error.strerror or str(error)) from error
    if status.st_uid != os.geteuid():
        raise UnusableRunDirectoryError(folder, f"it belongs to the user with id {status.st_uid}")
    if status.st_mode & 0o022:
        raise UnusableRunDirectoryError(folder, f"others may write to it; chmod go-w {folder}")
    return folder


@contextmanager
def _open_lock(folder: Path) -> Generator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        lock = os.open(folder / "lock", flags, mode=0o600)
    except OSError as error:
        raise UnusableRunDirectoryError(folder, f"lock: {error.strerror}") from error
    try:
        yield lock
    finally:
        os.close(lock)  # and never an unlink: somebody may be waiting for this very file


def _take_lock(folder: Path, lock: int, wait_sec: float, say: Callable[[str], object]) -> None:
    deadline = time.monotonic() + wait_sec
    announced = False
    while not _try_lock(folder, lock):
        occupant = _read_occupant(lock)
        if occupant is not None and occupant.running:
            raise AlreadyRunningError(folder, occupant.pid, occupant.manifest)
        # It is stopping, or its guard cleans up, or it has not said yet who it is.
        if time.monotonic() >= deadline:
            pid, manifest = (occupant.pid, occupant.manifest) if occupant else (None, None)
            raise AlreadyRunningError(folder, pid, manifest, "stopping")
        if not announced:
            say(f"waiting for the former runtime in {folder} to be gone")
            announced = True
        time.sleep(_LOCK_POLL_SEC)


def _try_lock(folder: Path, lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a network file system without locks
        raise UnusableRunDirectoryError(folder, f"lock: {error.strerror}") from error
    return True


def _read_occupant(lock: int) -> _Occupant | None:
    """Return what the lock's first line says, None as long as it is not a whole one of ours."""
    line, _, _ = os.pread(lock, 1 << 16, 0).partition(b"\n")
    try:
        return _Occupant(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _write_occupant(lock: int, occupant: _Occupant) -> None:
    line = json.dumps(occupant._asdict()).encode() + b"\n"
    with suppress(OSError):  # the lock is what counts; a full disk keeps nobody from stopping
        os.pwrite(lock, line, 0)
        os.ftruncate(lock, len(line))  # afterwards: the first line is whole at any time


def _identify(lock: int) -> str:
    """Return what the ids of all trees that ever have this lock begin with."""
    status = os.fstat(lock)
    return _hash(f"{status.st_dev}:{status.st_ino}".encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _end_leftovers(folder: Path, leftovers: Leftovers, say: Callable[[str], object]) -> None:
    ended: dict[Member, str] = {}
    deadline = time.monotonic() + SWEEP_SEC
    while True:
        left = leftovers.look()
        for member in left:
            ended.setdefault(member, f"{read_name(member.pid)} ({member.pid})")
        kill_groups(leftovers.groups)
        if not left:
            break
        if time.monotonic() >= deadline:
            raise LeftoversError(folder, [f"{read_name(pid)} ({pid})" for pid, _ in left])
        for member in left:
            send_signal(member, SIGKILL)
        time.sleep(_SWEEP_POLL_SEC)
    if ended:
        say(f"ended what a former runtime had left: {', '.join(ended.values())}")
