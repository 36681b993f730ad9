"""User, group, umask, priority, limits: how they are written, who may give them, how they act."""

from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pydantic import ValidationError

from runtime._problems import Problem
from runtime.process import Process, ProcessManifest
from runtime.process.privileges import (
    CAP_KILL,
    CAP_SETGID,
    CAP_SETUID,
    CAP_SYS_NICE,
    CAP_SYS_RESOURCE,
    Privileges,
    Rights,
)
from runtime.process.specs import RLIMITS

SHIM = Path(__file__).parents[2] / "runtime" / "process" / "_shim.py"
CAPABILITIES = (CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_NICE, CAP_SYS_RESOURCE)
LIMITS = {"nofile": (1024, 4096), "core": (0, -1), "nproc": (10, 10), "nice": (0, 0)}
NOBODY = pwd.getpwnam("nobody")
ROOT = Rights(
    uid=0,
    gid=0,
    capabilities=frozenset(CAPABILITIES),
    nice=0,
    limits=LIMITS,
    most_open_files=2**20,
)
#: nobody, but in the group of root: who is told apart from his own account by the group.
USER = replace(ROOT, uid=NOBODY.pw_uid, gid=0, capabilities=frozenset())
VARIABLES = {
    "HOME": NOBODY.pw_dir,
    "USER": "nobody",
    "LOGNAME": "nobody",
    "SHELL": NOBODY.pw_shell,
}


def make(**fields: Any) -> Process:
    return Process.model_validate({"name": "p", "path": "/bin/sh", **fields})


def decided(rights: Rights, **fields: Any) -> Privileges | None:
    """Return what a process is given; nothing must be against it."""
    process, found = make(**fields), list[Problem]()
    process.resolve_privileges(rights, found)
    assert found == []
    return process.privileges


def problems(rights: Rights, **fields: Any) -> list[tuple[str, str]]:
    found: list[Problem] = []
    make(**fields).resolve_privileges(rights, found)
    return [(".".join(map(str, where[2:])), what) for where, what in found]


# --- how they are written -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "umask"),
    [
        ("027", 0o027),
        ("27", 0o027),
        ("0o27", 0o027),
        ("0", 0),
        ("777", 0o777),
        (0o022, 0o022),
        (0o027, 0o027),  # as YAML 1.1 reads 027
        (0o077, 0o077),
        (7, 7),
        (38, 38),  # 8 is no octal digit
        (None, None),
    ],
)
def test_a_umask_is_octal_text_or_what_yaml_makes_of_it(written: Any, umask: int | None) -> None:
    process = make(umask=written)
    assert process.umask == umask
    assert Process.model_validate(process.model_dump(by_alias=True)).umask == umask


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (27, '27 is ambiguous; write octal digits in quotes: "027" or "033"'),
        (22, '22 is ambiguous; write octal digits in quotes: "022" or "026"'),
        (77, '77 is ambiguous; write octal digits in quotes: "077" or "115"'),
        (777, '777 is ambiguous; write octal digits in quotes: "777"'),
        (1777, 'is out of range, which is "000" to "777"'),
        ("1777", 'is out of range, which is "000" to "777"'),
        ("1" + "0" * 20, 'is out of range, which is "000" to "777"'),
        ("7" * 100_000, 'is out of range, which is "000" to "777"'),
        (-1, 'is out of range, which is "000" to "777"'),
        ("028", 'must be octal digits, such as "027"'),
        ("-1", 'must be octal digits, such as "027"'),
        ("", 'must be octal digits, such as "027"'),
        ("u=rwx", 'must be octal digits, such as "027"'),
        (True, 'must be octal digits in quotes, such as "027"'),
        (2.5, 'must be octal digits in quotes, such as "027"'),
    ],
)
def test_a_umask_that_may_mean_two_things_or_none_is_refused(written: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(umask=written)
    assert [error["msg"] for error in caught.value.errors()] == [f"Value error, {words}"]


@pytest.mark.parametrize("key", ["user", "group"])
@pytest.mark.parametrize("written", [True, 1.5, [], -1, 2**32 - 1])
def test_a_user_or_group_is_a_name_or_a_number(key: str, written: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        make(**{key: written})
    (error,) = caught.value.errors()
    assert error["loc"] == (key,)
    assert "must be a name or a number" in error["msg"] or "from 0 to 4294967294" in error["msg"]


def test_an_empty_user_or_group_counts_as_unset() -> None:
    process = make(user="", group="")
    assert (process.user, process.group) == (None, None)
    assert decided(USER, user="", group="") is None


@pytest.mark.parametrize(
    ("written", "pair"),
    [
        (100, (100, 100)),
        ("100", (100, 100)),
        ("unlimited", ("unlimited", "unlimited")),
        ([5, 10], (5, 10)),
        ([0, "unlimited"], (0, "unlimited")),
        (["7", 7], (7, 7)),
    ],
)
def test_a_limit_is_a_number_or_unlimited_or_a_pair(written: Any, pair: Any) -> None:
    process = make(rlimits={"core": written})
    assert process.rlimits == {"core": pair}
    assert Process.model_validate(process.model_dump(by_alias=True)).rlimits == {"core": pair}


@pytest.mark.parametrize(
    ("rlimits", "words"),
    [
        ({"core": [2, 1]}, "the soft limit 2 is above the hard one, 1"),
        ({"core": ["unlimited", 1]}, "the soft limit unlimited is above the hard one, 1"),
        ({"core": [1]}, "a pair has two limits, [soft, hard]"),
        ({"core": []}, "a pair has two limits, [soft, hard]"),
        ({"core": -1}, "must be a whole number"),
        ({"core": 1.5}, "must be a whole number"),
        ({"core": True}, "must be a whole number"),
        ({"core": None}, "must be a whole number"),
        ({"core": "many"}, "must be a whole number"),
        ({"core": 2**63}, "must be a whole number"),
        ({"core": "9" * 100_000}, "must be a whole number"),
        ({"core": [[1], 2]}, "must be a whole number"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_limit_that_makes_no_sense_is_refused(rlimits: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(rlimits=rlimits)
    (error,) = caught.value.errors()
    assert error["msg"].startswith(f"Value error, {words}")
    assert error["loc"][:2] == ("rlimits", *rlimits)


# --- who may give them ----------------------------------------------------------------------------


def test_nothing_is_given_where_nothing_is_asked_for() -> None:
    assert decided(USER) is None
    assert decided(ROOT) is None


@pytest.mark.parametrize("user", ["nobody", NOBODY.pw_uid, str(NOBODY.pw_uid)])
def test_a_user_is_found_by_name_or_uid_and_has_its_own_groups(user: str | int) -> None:
    assert decided(ROOT, user=user) == Privileges(
        user="nobody",
        uid=NOBODY.pw_uid,
        gid=NOBODY.pw_gid,
        groups=tuple(sorted(os.getgrouplist("nobody", NOBODY.pw_gid))),
        variables=VARIABLES,
    )


@pytest.mark.parametrize("as_number", [False, True])
def test_a_group_of_its_own_takes_the_place_of_the_users(as_number: bool) -> None:
    other = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, NOBODY.pw_gid))
    group = other.gr_gid if as_number else other.gr_name
    privileges = decided(ROOT, user="nobody", group=group)
    assert privileges is not None
    assert privileges.gid == other.gr_gid
    assert privileges.groups == tuple(sorted(os.getgrouplist("nobody", other.gr_gid)))
    assert decided(ROOT, group=group) == Privileges(gid=other.gr_gid)


def test_a_uid_that_nobody_has_needs_a_group() -> None:
    unknown = 4_000_000_000
    assert problems(ROOT, user=unknown) == [
        ("user", f"{unknown} is nobody's here; give a `group` as well")
    ]
    assert decided(ROOT, user=unknown, group=7) == Privileges(
        user=str(unknown),
        uid=unknown,
        gid=7,
        groups=(7,),
        variables={
            "HOME": "/",
            "USER": str(unknown),
            "LOGNAME": str(unknown),
            "SHELL": "/bin/sh",
        },
    )


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"user": "noboddy"}, [("user", "there is no user 'noboddy'; did you mean 'nobody'?")]),
        ({"user": "\0"}, [("user", "there is no user '\\x00'")]),
        ({"user": "\udcff\ud800"}, [("user", "there is no user '\\udcff\\ud800'")]),
        ({"user": "9" * 9_999}, [("user", f"there is no user {'9' * 9_999!r}")]),
        (
            {"user": "q1w2", "group": "e3r4"},
            [("group", "there is no group 'e3r4'"), ("user", "there is no user 'q1w2'")],
        ),
        ({"group": "rooot"}, [("group", "there is no group 'rooot'; did you mean 'root'?")]),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_unknown_names_are_told_with_the_nearest_right_one(
    fields: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    assert problems(ROOT, **fields) == found


ONLY_WITH = "may be another one than we are only with CAP_SETUID, CAP_SETGID and CAP_KILL"
ANOTHER_USER = ("user", f"{ONLY_WITH}; start the runtime as root, or leave it out")
ANOTHER_GROUP = ("group", "may not be another one than ours without CAP_SETGID")


@pytest.mark.parametrize("missing", [CAP_SETUID, CAP_SETGID, CAP_KILL])
def test_another_user_takes_all_that_is_needed_to_start_and_to_stop_it(missing: int) -> None:
    rights = replace(ROOT, capabilities=ROOT.capabilities - {missing})
    assert problems(rights, user="nobody") == [ANOTHER_USER]
    assert decided(rights, user="root") is not None


def test_without_privileges_one_may_only_be_who_one_is() -> None:
    assert problems(USER, user="root") == [ANOTHER_USER]
    assert problems(USER, group=12) == [ANOTHER_GROUP]
    assert problems(USER, user="nobody", group=12) == [ANOTHER_GROUP]
    itself = Privileges(user="nobody", variables=VARIABLES)
    assert decided(USER, user="nobody") == decided(USER, user="nobody", group=0) == itself
    assert decided(USER, group=0) == Privileges(gid=0)


@pytest.mark.parametrize(
    ("nice", "privileged", "limit", "lowest"),
    [
        (0, True, 0, -20),
        (0, False, 0, 0),
        (5, False, 0, 5),
        (5, False, 18, 2),
        (0, False, 40, -20),
        (0, False, 100, -20),
        (0, False, resource.RLIM_INFINITY, -20),
        (-5, False, 10, -5),
    ],
)
def test_the_lowest_nice_value_is_ours_unless_more_is_allowed(
    nice: int, privileged: bool, limit: int, lowest: int
) -> None:
    rights = replace(
        USER,
        nice=nice,
        capabilities=frozenset({CAP_SYS_NICE} if privileged else ()),
        limits={**LIMITS, "nice": (limit, limit)},
    )
    assert decided(rights, nice=lowest) == Privileges(nice=lowest)
    if lowest > -20:
        words = f"may not be below {lowest} here; that needs CAP_SYS_NICE or RLIMIT_NICE"
        assert problems(rights, nice=lowest - 1) == [("nice", words)]


def test_a_hard_limit_above_ours_takes_a_privilege() -> None:
    wanted = {"nproc": [5, 11], "nofile": "unlimited", "core": "unlimited"}
    assert problems(USER, rlimits=wanted) == [
        ("rlimits.nproc", "the hard limit is 10 here; more of it needs CAP_SYS_RESOURCE"),
        ("rlimits.nofile", "the kernel allows 1048576 at most (sysctl fs.nr_open)"),
    ]
    assert problems(ROOT, rlimits=wanted) == [
        ("rlimits.nofile", "the kernel allows 1048576 at most (sysctl fs.nr_open)")
    ]
    limits = {"nproc": (5, 10), "nofile": (4096, 4096), "core": (-1, -1)}
    written = {"nproc": [5, 10], "nofile": 4096, "core": "unlimited"}
    assert decided(USER, rlimits=written) == Privileges(limits=limits)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nofil", "did you mean 'nofile'?"),
        ("RLIMIT_CORE", "did you mean 'core'?"),
        ("xyz", f"there are {', '.join(RLIMITS)}"),
    ],
)
def test_an_unknown_limit_is_told_with_its_nearest_right_name(name: str, hint: str) -> None:
    found = problems(ROOT, rlimits={name: 1, "core": 0})
    assert found == [(f"rlimits.{name}", f"there is no such limit; {hint}")]


def test_hundreds_of_unknown_names_get_no_hint() -> None:
    found: list[Problem] = []
    for _ in range(150):
        make(user="noboddy", group="rooot", rlimits={"nofil": 1}).resolve_privileges(ROOT, found)
    assert len(found) == 450
    assert {what for _, what in found[-3:]} == {
        "there is no user 'noboddy'",
        "there is no group 'rooot'",
        f"there is no such limit; there are {', '.join(RLIMITS)}",
    }


def test_our_own_rights_are_what_the_kernel_says() -> None:
    rights = Rights.ours()
    assert (rights.uid, rights.gid) == (os.geteuid(), os.getegid())
    assert rights.nice == os.getpriority(os.PRIO_PROCESS, 0)
    assert rights.limits["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert "ofile" not in rights.limits
    assert rights.most_open_files == int(Path("/proc/sys/fs/nr_open").read_text())
    status = Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0]
    assert sum(1 << number for number in rights.capabilities) == int(status, 16)


@pytest.mark.parametrize(("uid", "able"), [(0, True), (1000, False)])
def test_without_proc_root_may_do_everything_and_nobody_else_anything(
    monkeypatch: pytest.MonkeyPatch, uid: int, able: bool
) -> None:
    def fail(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    rights = Rights.ours()
    assert rights.may_change_user is able
    assert rights.most_open_files == sys.maxsize


# --- in a manifest --------------------------------------------------------------------------------


def test_a_manifest_tells_each_problem_at_its_place_and_may_check_again() -> None:
    found: list[Any] = []
    entries = [
        {"name": "a", "path": "/bin/sh", "umask": "022"},
        {"name": "b", "path": "/bin/sh", "user": "noboddy", "rlimits": {"nofile": 2**40}},
    ]
    manifest = ProcessManifest.model_validate({"processes": entries}, context=found)
    assert [(".".join(map(str, where)), what.partition(";")[0]) for where, what in found] == [
        ("processes.b.rlimits.nofile", found[0].message),
        ("processes.b.user", "there is no user 'noboddy'"),
    ]
    second = manifest.processes[1]
    second.user, second.rlimits = None, {}
    assert manifest.validate_privileges() is manifest
    assert [process.privileges for process in manifest.processes] == [Privileges(umask=18), None]


@pytest.mark.parametrize(
    ("closed", "act"),
    [pytest.param("bin", "enter", id="folder"), pytest.param("bin/tool", "execute", id="file")],
)
def test_a_program_that_its_user_may_not_execute_is_told(closed: str, act: str) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        (folder / "bin").mkdir(mode=0o755)
        tool = folder / "bin" / "tool"
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
        assert problems(ROOT, path=tool, user="nobody") == []
        (folder / closed).chmod(0o700)
        words = (
            f"user 'nobody' cannot run {tool}, for it may not {act} {folder / closed};"
            " name a program that it may execute"
        )
        assert problems(ROOT, path=tool, user="nobody") == [("path", words)]
        stop = {"path": "/bin/sh", "stop_command": [str(tool), "now"]}
        assert problems(ROOT, user="nobody", **stop) == [("stop_command.0", words)]
        assert problems(ROOT, user="root", **stop) == []
        assert problems(ROOT, path=tool, user="root") == []
        assert problems(ROOT, path=tool, group="nogroup") == []
        assert problems(ROOT, path="tool", user="nobody") == []  # it has not been looked for yet


def test_the_variables_of_the_user_give_way_to_those_of_the_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/root")
    process = make(user="nobody", env={"SHELL": "/bin/other"})
    process.resolve_privileges(USER, [])
    found = process.merged_env({})
    expected = {**VARIABLES, "SHELL": "/bin/other"}
    assert {name: found[name] for name in expected} == expected
    assert make().merged_env({})["HOME"] == "/root"


# --- the shim, measured; test_spawn.py has it as it is used ---------------------------------------


def run_shim(privileges: Privileges, *argv: str, folder: Path | None = None) -> tuple[str, str]:
    """Return what the program that the shim becomes prints, and what the shim reports."""
    pipe, shims_pipe = os.pipe()
    env = {**os.environ, "LC_CTYPE": "C"}
    python, _, _, shim, *rest = privileges.shim(argv, folder, env, shims_pipe)
    assert Path(shim) == SHIM
    ended = subprocess.run(
        [python, shim, *rest],
        env=env,
        pass_fds=[shims_pipe],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(shims_pipe)
    with os.fdopen(pipe) as reports:
        report = reports.read()
    assert (ended.returncode == 127) is bool(report)
    return ended.stdout, report


def test_the_shim_takes_on_what_it_is_told_and_becomes_the_program(tmp_path: Path) -> None:
    ids = {"uid": os.geteuid(), "gid": os.getegid()}
    if os.geteuid() == 0:
        ids["groups"] = (0, 1)
    privileges = Privileges(**ids, umask=0o77, nice=19, limits={"core": (0, 0)})
    printed, report = run_shim(
        privileges,
        "/bin/sh",
        "-c",
        "pwd; umask; nice; ulimit -c; id -G; echo $LC_CTYPE",
        folder=tmp_path,
    )
    groups = "0 1" if os.geteuid() == 0 else " ".join(map(str, os.getgroups()))
    assert report == ""
    assert printed.split("\n") == [str(tmp_path), "0077", "19", "0", groups, "C", ""]


@pytest.mark.parametrize(
    ("privileges", "program", "report"),
    [
        (Privileges(), "/no/such/program", "path\0No such file or directory"),
        (
            Privileges(limits={"nofile": (1, 2**40)}),
            "/bin/true",
            "rlimits.nofile\0not allowed to raise maximum limit",
        ),
    ],
    ids=["exec", "limit"],
)
def test_the_shim_reports_what_it_was_at_when_it_failed(
    privileges: Privileges, program: str, report: str
) -> None:
    assert run_shim(privileges, program) == ("", report)


def test_the_shim_loads_next_to_nothing() -> None:
    python, *rest = Privileges(umask=0).shim(["/bin/true"], None, os.environ, 2)
    argv = [python, "-X", "importtime", *rest]
    told = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=True, timeout=60).stderr
    imported = set(re.findall(r"\| +(\S+)\n", told))
    assert {"os", "resource"} <= imported
    assert {
        "collections",
        "enum",
        "functools",
        "re",
        "signal",
        "site",
        "typing",
    } & imported == set()
