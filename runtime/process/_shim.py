"""Becomes a program, after it has taken on what the manifest says of user, priority and limits.

Not imported but run, by an interpreter that loads nothing else: each module more would cost every
start. `privileges` makes the arguments. They end with the program and its own arguments; before
these comes what is to be set, "-" for what is left alone.

Whatever fails is told through a pipe that the parent reads, which the exec closes. So the parent
knows the difference between a program that could not be started and one that has ended with 127.
"""

import os
import resource
import sys

# `signal` itself would load enum.
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
    SIGPIPE,
    SIGXFSZ,
    signal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = 9  # of the settings: all that stands before the program in the arguments


def main(arguments: list[str]) -> None:
    """Become the program in the *arguments*, or end with what failed told to the parent."""
    pipe = int(arguments[0])
    os.set_inheritable(pipe, False)
    doing = "path"
    try:
        for key in become(arguments[1:PLACES], arguments[PLACES:]):
            doing = key
    except Exception as error:  # noqa: BLE001 - the parent is told, whatever it is
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        os.write(pipe, f"{doing}\0{words}".encode(errors="replace"))
    os._exit(127)


def become(settings: list[str], argv: list[str]) -> "Iterator[str]":
    """Take on the *settings* and become *argv*; yield the key of each step before it is taken.

    Limits and priority come first, for a user without privileges could not raise them; the folder
    is entered as that user.
    """
    limits, nice, groups, gid, uid, umask, folder, ctype = settings
    for each in filter(None, limits.split(",")):
        name, which, soft, hard = each.split(":")
        yield f"rlimits.{name}"
        resource.setrlimit(int(which), (int(soft), int(hard)))
    if nice != "-":
        yield "nice"
        os.setpriority(os.PRIO_PROCESS, 0, int(nice))
    yield "group"
    if uid != "-" and os.geteuid() != 0:
        # One who may do this without being root loses the right to it only by having been root.
        yield "user"
        os.setuid(0)
    if groups != "-":
        os.setgroups([int(group) for group in groups.split(",") if group])
    if gid != "-":
        os.setgid(int(gid))
    if uid != "-":
        yield "user"
        os.setuid(int(uid))
    if umask != "-":
        os.umask(int(umask))
    if folder:
        yield "working_directory"
        os.chdir(folder)
    yield "path"
    # What the interpreter has changed for itself when it started must not reach the program.
    environ = dict(os.environb)
    environ.pop(b"LC_CTYPE", None)
    if ctype != "-":
        environ[b"LC_CTYPE"] = os.fsencode(ctype[1:])
    signal(SIGPIPE, SIG_DFL)
    signal(SIGXFSZ, SIG_DFL)
    os.execve(argv[0], argv, environ)


if __name__ == "__main__":
    main(sys.argv[1:])
