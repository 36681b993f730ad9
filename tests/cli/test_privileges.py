"""Who may not start processes as others is told so; who may, stops them as well."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime.process.privileges import Rights

if TYPE_CHECKING:
    from tests.cli.conftest import Site

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to be another user and to start as one"
)
#: Who may not write where the measurements go would say so.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": None, "COVERAGE_PROCESS_START": None}
NOBODY = pwd.getpwnam("nobody")


def as_user(uid: int, *capabilities: str) -> list[str]:
    """Return what runs a program as that user, who may read what root may: this Python, say."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, of util-linux")
    given = ",".join(f"+{name}" for name in ("dac_read_search", *capabilities))
    ids = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps", given, "--ambient-caps", given]


def test_without_privileges_all_that_is_asked_for_in_vain_is_told(public_site: Site) -> None:
    site = public_site
    site.add("a", "exit 0", user="root", nice=-20, rlimits={"core": "unlimited"})
    site.add("b", "exit 0", user="nobody", group="root")
    site.add("c", "exit 0", user="nobody", nice=19)
    wrapper = [*as_user(NOBODY.pw_uid), "sh", "-c", 'ulimit -c 0; exec "$@"', "sh"]
    program = site.start(wrapper=wrapper, env=UNMEASURED)
    assert program.wait() == 2
    told = [line.partition(": ")[2] for line in program.err.lines]
    lowest = replace(Rights.ours(), capabilities=frozenset()).lowest_nice
    another = "may be another one than we are only with CAP_SETUID, CAP_SETGID and CAP_KILL"
    assert sorted(told) == [
        f"processes.a.nice: may not be below {lowest} here; that needs CAP_SYS_NICE or RLIMIT_NICE",
        "processes.a.rlimits.core: the hard limit is 0 here; more of it needs CAP_SYS_RESOURCE",
        f"processes.a.user: {another}; start the runtime as root, or leave it out",
        "processes.b.group: may not be another one than ours without CAP_SETGID",
    ]


def test_who_may_change_the_user_without_being_root_hands_nothing_of_that_on(
    public_site: Site,
) -> None:
    site = public_site
    site.add("a", "SAY; exec sleep 1000", user="nobody")
    wrapper = as_user(2, "setuid", "setgid", "kill", "dac_override")
    program = site.start(wrapper=wrapper, env=UNMEASURED)
    site.hear_everyone()
    status = Path(f"/proc/{site.pid_of('a')}/status").read_text()
    assert {f"Cap{kind}:\t{0:016x}" for kind in ("Prm", "Eff", "Amb")} <= set(status.split("\n"))
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert site.find_left() == []


def test_a_tree_of_another_users_processes_stops_and_leaves_nothing(public_site: Site) -> None:
    site = public_site
    site.add("meek", "SAY; exec sleep 1000", user="nobody")
    site.add("deaf", "trap '' TERM; SAY; while :; do sleep 1000; done", user="nobody", timeout=0.1)
    site.add("stray", "setsid sh -c 'SAY; exec sleep 1000' & SAY; wait", user="nobody")
    program = site.start()
    site.hear_everyone()
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert site.find_left() == []
