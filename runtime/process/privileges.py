"""What a program is given beside its arguments: a user, a priority, limits; and who may give it.

It is decided when a manifest is checked, by the user database as it is then, and acted upon by
`_shim`, a script that becomes the program. So there is no code of ours between fork and exec, where
threads forbid it; `subprocess` could change the user as well, but before the limits are raised,
which takes the privileges that are gone then.
"""

import errno
import grp
import os
import pwd
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Self, TypeVar

from runtime._problems import Location, Problem, did_you_mean

from ._access import find_barrier
from ._executable import is_folder
from .specs import HIGHEST_ID, RLIMITS, Limit

# Bits of a capability set: see capabilities(7).
CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_NICE, CAP_SYS_RESOURCE = 5, 6, 7, 23, 24

_KNOWN = ", ".join(RLIMITS)
_SHIM = str(Path(__file__).with_name("_shim.py"))

Limits = Mapping[str, tuple[Limit, Limit]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Who this process is, and what the kernel lets it do."""

    uid: int
    gid: int
    capabilities: frozenset[int]
    nice: int
    limits: Mapping[str, tuple[int, int]]
    most_open_files: int

    @classmethod
    def ours(cls) -> Self:
        """Return those of the calling process."""
        return cls(
            uid=os.geteuid(),
            gid=os.getegid(),
            capabilities=_capabilities(),
            nice=os.getpriority(os.PRIO_PROCESS, 0),
            limits={name: resource.getrlimit(number) for name, number in RLIMITS.items()},
            most_open_files=_most_open_files(),
        )

    @property
    def lowest_nice(self) -> int:
        """The lowest nice value that it may take."""
        if CAP_SYS_NICE in self.capabilities:
            return -20
        allowed, _ = self.limits.get("nice", (0, 0))  # counted from 20 downwards
        return min(self.nice, 20 - int(min(_finite(allowed), 40)))

    @property
    def may_change_user(self) -> bool:
        """Whether it may start a process of another user, and stop it again."""
        return {CAP_SETUID, CAP_SETGID, CAP_KILL} <= self.capabilities


def _capabilities() -> frozenset[int]:
    try:
        status = Path("/proc/self/status").read_text()
        bits = int(status.partition("\nCapEff:")[2].split()[0], 16)
    except (OSError, IndexError):  # not Linux: root may do everything, the others nothing
        bits = -1 if os.geteuid() == 0 else 0
    return frozenset(number for number in range(64) if bits >> number & 1)


def _most_open_files() -> int:
    try:
        return int(Path("/proc/sys/fs/nr_open").read_text())
    except (OSError, ValueError):
        return sys.maxsize


def _finite(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    """What a program takes on before its first instruction; None leaves it as it is with us.

    *limits* has pairs of numbers by the limit's name; *variables* tell the program who it is.
    """

    user: str | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    umask: int | None = None
    nice: int | None = None
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def with_open_files(self, limits: tuple[int, int] | None) -> Self:
        """Return the same with these *limits* of open files, unless it has some of its own."""
        given = {} if limits is None else {"nofile": limits}
        return replace(self, limits={**given, **self.limits})

    def shim(
        self, argv: Sequence[str], folder: Path | None, env: Mapping[str, str], pipe: int
    ) -> list[str]:
        """Return the command that becomes *argv* with all of this; it tells *pipe* if it cannot."""
        limits = [
            f"{name}:{RLIMITS[name]}:{soft}:{hard}" for name, (soft, hard) in self.limits.items()
        ]
        groups = None if self.groups is None else ",".join(map(str, self.groups))
        ctype = f"={env['LC_CTYPE']}" if "LC_CTYPE" in env else None
        settings = [",".join(limits), self.nice, groups, self.gid, self.uid, self.umask]
        told = ["-" if each is None else str(each) for each in (*settings, folder or "", ctype)]
        return [sys.executable, "-I", "-S", _SHIM, str(pipe), *told, *argv]

    def failure(self, report: str, program: str, folder: Path | None) -> OSError:
        """Return the error that the *report* in the shim's pipe stands for."""
        key, _, words = report.partition("\0")
        if key not in ("path", "working_directory"):
            return OSError(0, f"{key}: {words}", program)
        if words == os.strerror(errno.EACCES) and self.user is not None:
            words = f"{words} for user {self.user!r}"
        return OSError(0, words, program if key == "path" else str(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The same as an entry of a manifest says it."""

    user: str | int | None
    group: str | int | None
    umask: int | None
    nice: int | None
    rlimits: Limits


_NOTHING = Wishes(user=None, group=None, umask=None, nice=None, rlimits={})


def decide(
    wishes: Wishes, rights: Rights, at: Location, problems: list[Problem]
) -> Privileges | None:
    """Return what the program is to be given, None for nothing.

    What forbids it is added to the *problems*, at places below *at*.
    """
    refused = chain(_judge_nice(wishes.nice, rights), _judge_limits(wishes, rights, problems))
    for where, message in refused:  # one by one, for hints depend on what has been told
        problems.append(Problem((*at, *where), message))
    group, account = None, Privileges()
    try:
        group = None if wishes.group is None else _find_group(wishes.group, problems)
    except _AccountError as error:
        problems.append(Problem((*at, error.key), error.problem))
        group = rights.gid  # nothing more is to be said of it
    try:
        account = _find_account(wishes.user, group, rights, problems)
    except _AccountError as error:
        problems.append(Problem((*at, error.key), error.problem))
    if wishes == _NOTHING:
        return None
    known = {name: _numbers(pair) for name, pair in wishes.rlimits.items() if name in RLIMITS}
    return replace(account, umask=wishes.umask, nice=wishes.nice, limits=known)


def judge_program(program: Path, given: Privileges) -> str:
    """Return what keeps *program* from being run by the user that it is *given*, in words."""
    if given.uid is None:
        return ""
    groups = {*(given.groups or ()), *(() if given.gid is None else (given.gid,))}
    barrier = find_barrier(program, given.uid, frozenset(groups))
    if barrier is None:
        return ""
    act = "enter" if is_folder(barrier) else "execute"
    return (
        f"user {given.user!r} cannot run {program}, for it may not {act} {barrier};"
        " name a program that it may execute"
    )


def _numbers(pair: tuple[Limit, Limit]) -> tuple[int, int]:
    soft, hard = (resource.RLIM_INFINITY if each == "unlimited" else each for each in pair)
    return soft, hard


def _judge_nice(nice: int | None, rights: Rights) -> Iterator[tuple[Location, str]]:
    if nice is not None and nice < rights.lowest_nice:
        yield (
            ("nice",),
            f"may not be below {rights.lowest_nice} here; that needs CAP_SYS_NICE or RLIMIT_NICE",
        )


def _judge_limits(
    wishes: Wishes, rights: Rights, told: Sequence[Problem]
) -> Iterator[tuple[Location, str]]:
    for name, pair in wishes.rlimits.items():
        if name not in RLIMITS:
            hint = did_you_mean(name.lower().removeprefix("rlimit_"), RLIMITS, told=told)
            yield ("rlimits", name), f"there is no such limit{hint or f'; there are {_KNOWN}'}"
            continue
        _, hard = map(_finite, _numbers(pair))
        ours = rights.limits[name][1]
        if name == "nofile" and hard > rights.most_open_files:
            most = f"the kernel allows {rights.most_open_files} at most (sysctl fs.nr_open)"
            yield ("rlimits", name), most
        elif hard > _finite(ours) and CAP_SYS_RESOURCE not in rights.capabilities:
            yield (
                ("rlimits", name),
                f"the hard limit is {ours} here; more of it needs CAP_SYS_RESOURCE",
            )


# --- users and groups -----------------------------------------------------------------------------


class _AccountError(Exception):
    """A user or group that cannot be had; *key* is what asks for it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem


def _find_account(
    user: str | int | None, group: int | None, rights: Rights, told: Sequence[Problem]
) -> Privileges:
    """Return who the program is to be; raise `_AccountError` if there is nobody, or it may not."""
    anothers_group = group not in (None, rights.gid)
    if user is None:
        if anothers_group and CAP_SETGID not in rights.capabilities:
            raise _AccountError("group", "may not be another one than ours without CAP_SETGID")
        return Privileges(gid=group)
    account = _find_user(user, group, told)
    if rights.may_change_user:
        return account
    if account.uid != rights.uid:
        needed = "may be another one than we are only with CAP_SETUID, CAP_SETGID and CAP_KILL"
        raise _AccountError("user", f"{needed}; start the runtime as root, or leave it out")
    if anothers_group:
        raise _AccountError("group", "may not be another one than ours without CAP_SETGID")
    return replace(account, uid=None, gid=None, groups=None)  # it is what we are


def _find_user(user: str | int, group: int | None, told: Sequence[Problem]) -> Privileges:
    """Return the account of a name or a uid, with *group* in the place of its own."""
    entry = _look(pwd.getpwnam, user) if isinstance(user, str) else None
    number = _number(user)
    if entry is None and number is not None:
        entry = _look(pwd.getpwuid, number)
    if entry is not None:
        name, gid = entry.pw_name, entry.pw_gid if group is None else group
        return Privileges(
            user=name,
            uid=entry.pw_uid,
            gid=gid,
            groups=tuple(sorted(os.getgrouplist(name, gid))),
            variables=_variables(name, entry.pw_dir, entry.pw_shell or "/bin/sh"),
        )
    if number is None:
        hint = did_you_mean(str(user), _user_names(), told=told)
        raise _AccountError("user", f"there is no user {user!r}{hint}")
    if group is None:
        raise _AccountError("user", f"{number} is nobody's here; give a `group` as well")
    variables = _variables(str(number), "/", "/bin/sh")
    return Privileges(user=str(number), uid=number, gid=group, groups=(group,), variables=variables)


def _find_group(group: str | int, told: Sequence[Problem]) -> int:
    entry = _look(grp.getgrnam, group) if isinstance(group, str) else None
    number = _number(group) if entry is None else entry.gr_gid
    if number is None:
        hint = did_you_mean(str(group), _group_names(), told=told)
        raise _AccountError("group", f"there is no group {group!r}{hint}")
    return number


def _user_names() -> Iterator[str]:
    yield from (entry.pw_name for entry in pwd.getpwall())


def _group_names() -> Iterator[str]:
    yield from (entry.gr_name for entry in grp.getgrall())


def _variables(name: str, home: str, shell: str) -> Mapping[str, str]:
    return {"HOME": home, "USER": name, "LOGNAME": name, "SHELL": shell}


Key = TypeVar("Key")
Entry = TypeVar("Entry")


def _look(find: Callable[[Key], Entry], key: Key) -> Entry | None:
    with suppress(KeyError, ValueError):  # ValueError: a NUL, or what no encoding has
        return find(key)
    return None


def _number(account: str | int) -> int | None:
    """Return a uid or gid, also where it is written as text; None for a name."""
    if isinstance(account, int):
        return account
    known = account.isascii() and account.isdecimal() and len(account) <= len(str(HIGHEST_ID))
    return int(account) if known and int(account) <= HIGHEST_ID else None
