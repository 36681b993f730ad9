"""No bad manifest does harm: it is told, with its place, on standard error, and nothing is started.

Every file that can hold one has a healthy process as well, which would leave a file behind.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pytest

from runtime.cli._check import check

if TYPE_CHECKING:
    from tests.cli.conftest import Ask, Loaded, OpenLoaded

CPUS = os.cpu_count() or 1

HEALTHY = "- {name: healthy, path: touch, args: [started]}\n"
GOOD = f"processes:\n{HEALTHY}"

Content: TypeAlias = "str | bytes | Callable[[Path], object]"


class Bad(NamedTuple):
    """A manifest, and each line that is said of it; ``…`` stands for words of somebody else's.

    FOLDER is where it lies, and *others* are files beside it.
    """

    content: Content
    lines: tuple[str, ...]
    name: str = "m.yaml"
    others: Mapping[str, str] = {}


def entry(fields: str, *lines: str, rest: str = "") -> Bad:
    """Return a manifest with *fields* of a process on line 3, and *rest* from line 4."""
    return Bad(f"{GOOD}- {{name: bad, path: sh, {fields}}}\n{rest}", lines)


def process(fields: str, line: str, rest: str = "") -> Bad:
    """Return the same; the key path in *line* begins inside of this process."""
    return entry(fields, f"3: processes.bad.{line}", rest=rest)


def group(fields: str, line: str) -> Bad:
    """Return a manifest with *fields* of a group; the key path in *line* begins inside of it."""
    return top(f"groups: [{{name: g, {fields}}}]", f"groups.g.{line}")


def top(rest: str, *lines: str, **others: str) -> Bad:
    """Return a manifest with *rest* from its third line on."""
    return Bad(f"{GOOD}{rest}\n", tuple(f"3: {line}" for line in lines), others=others)


def raw(content: Content, *lines: str, name: str = "m.yaml") -> Bad:
    return Bad(content, lines, name)


def plugins(code: str, *lines: str, fields: str = "") -> Bad:
    text = f"{GOOD}- {{name: bad, path: sh, {fields}}}\nplugins: .\n"
    return Bad(text, lines, others={"p.py": f"from runtime import Plugin\n{code}"})


def control(settings: str, line: str) -> Bad:
    """Return a manifest whose bundled control server has these *settings*."""
    text = f"{GOOD}control_server: tcp\ncontrol_params: {{{settings}}}\n"
    return Bad(text, (f"4: control_params.{line}",))


def services(fields: str, line: str) -> Bad:
    """Return a manifest with *fields* of a service; the key path in *line* begins inside of it."""
    text = f"{GOOD}services:\n- {{{fields}}}\n"
    return Bad(text, (f"4: services.s.{line}",), others={"exits_at_once.py": "raise SystemExit(0)"})


TASKS = """from runtime import Application
app = Application()

@app.task
async def double(number: int) -> int: return 2 * number

@app.task
def fail(words: str = "") -> None: raise RuntimeError(words)
"""
ODD = """from runtime import Application
app = Application()
class Odd: ...

@app.task
def odd(it: Odd) -> None: ...
"""


def tasks(fields: str, *lines: str, rest: str = "", **others: str) -> Bad:
    """Return a manifest with *fields* of tasks on line 3, and *rest* from line 4."""
    files = {"shop_tasks.py": TASKS} | {f"{name}.py": text for name, text in others.items()}
    return Bad(f"{GOOD}tasks: {{{fields}}}\n{rest}\n", lines, others=files)


def jobs(entries: str, *lines: str) -> Bad:
    """Return a manifest with these jobs on line 4, where the lines belong that begin with a dot."""
    told = (f"4: jobs{line}" for line in lines)
    return tasks("modules: [shop_tasks]", *told, rest=f"jobs: [{entries}]")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def bomb() -> str:
    levels = (f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    return f"{GOOD}x-0: &a0 [lol]\n{''.join(levels)}"


def crowd(number: int) -> str:
    before = ", ".join(f"g{n}" for n in range(number))
    return f"{{name: g{number}, path: sh, replicas: 100, dependencies: [{before}]}}"


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 1024 * 1024 + 1)


def unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # a regular file that even root cannot read from its start


def in_json(fields: Mapping[str, object], indent: int = 0) -> str:
    healthy = {"name": "healthy", "path": "touch", "args": ["started"]}
    return json.dumps(
        {"processes": [healthy, {"name": "bad", "path": "sh", **fields}]}, indent=indent
    )


TOML = """[[processes]]
name = "healthy"
path = "touch"
args = ["started"]
[[processes]]
name = "bad"
path = "sh"
"""

HOOKS = """
class P(Plugin):
    def get_lifecycle_hooks(self): return {"announce": {}}
    def get_ready_strategies(self): return {"answers": print}
    def get_stats_handlers(self): return {"export": []}
    def get_control_servers(self): return {"telnet": print}
"""

ALL = "strategy: one_for_all"
IDLE = "runtime.service.plain:idle"
NUMBER = "input should be a valid number, unable to parse string as a number"
FROM_ZERO = "input should be greater than or equal to 0"
ARGS = 'path: sh, args: ["${NEVER_SET_ANYWHERE}"]'
UNSET = (
    "${NEVER_SET_ANYWHERE} is not set; set it, or give a default: ${NEVER_SET_ANYWHERE:-default}"
)
FINITE = "input should be a finite number"

LONG = "s" * 108
#: A strategy, its parameters, and each line that is said of them, from their key on.
READINESS = [
    ("tcp", "prot: 80, port: 80", ".prot: unknown key; did you mean 'port'?"),
    ("tcp", "host: here", ".port: is missing; the tcp strategy needs it, or `unix`"),
    ("tcp", "port: 80, host: 5", ".host: must be text; put it in quotes"),
    ("tcp", "port: 80, unix: s", ".port: means nothing beside `unix`; leave one of them out"),
    ("tcp", "host: a, unix: s", ".host: means nothing beside `unix`; leave one of them out"),
    ("tcp", f"unix: /{LONG}", f".unix: /{LONG} is longer than 107 bytes; …"),
    ("tcp", "port: x, hots: y", ".hots: unknown key; …", ".port: must be a number from 1 to 65535"),
    ("file", "path: ready, x: 1", ".x: unknown key"),
    ("file", "path: null", ".path: must be a path"),
    ("pipe", 'path: "a\\0b"', ".path: must not contain a NUL character"),
    ("log", "", ".pattern: is missing; the log strategy needs it"),
    ("log", 'pattern: ""', ".pattern: string should have at least 1 character"),
    ("log", 'pattern: "a["', ".pattern: is no regular expression: unterminated character …"),
    ("log", 'pattern: "a{99999999999}"', ".pattern: is no regular expression: the repetition …"),
    ("log", f"pattern: {'(' * 999}", ".pattern: is no regular expression: it is nested too deeply"),
    ("log", f"pattern: {'x' * 1001}", ".pattern: string should have at most 1000 characters"),
    ("exec", "", ".command: is missing; the exec strategy needs it"),
    ("exec", "command: []", ".command: list should have at least 1 item after validation, not 0"),
    ("exec", "command: pg_isready -q", ".command: input should be a valid list"),
    ("exec", "command: [no-such-program]", ".command.0: there is no 'no-such-program' in …"),
    ("exec", "command: [./m.yaml]", ".command.0: …/m.yaml is not executable; `chmod +x` it"),
    ("exec", "command: [sh, 5]", ".command.1: must be text; put it in quotes"),
    ("http", "", ".url: is missing; the http strategy needs it"),
    ("http", "url: localhost/x", ".url: must be a URL such as http://localhost:8000/healthz"),
    ("http", "url: 'ftp://a'", ".url: must be a URL such as http://localhost:8000/healthz"),
    ("http", "url: 'http://:80'", ".url: must be a URL such as http://localhost:8000/healthz"),
    ("http", "url: 'http://a..b'", ".url: must be a URL such as http://localhost:8000/healthz"),
    ("http", "url: 'http://a:0'", ".url: must be a URL such as http://localhost:8000/healthz"),
    ("http", "url: 'http://a:70000'", ".url: is no URL: Port out of range 0-65535"),
    ("http", "url: 'http://[::1'", ".url: is no URL: Invalid IPv6 URL"),
    ("http", "url: 'http://a/b c'", ".url: must be of ASCII without spaces; …"),
    ("http", "url: 'http://u:p@a'", ".url: must not have a user in it; …"),
    ("http", "url: 'http://a', status: [200, 99]", ".status.1: input should be greater than …"),
    ("http", "url: 'http://a', status: ok", ".status: input should be a valid integer, …"),
    ("http", "url: 'http://a', status: []", ".status: list should have at least 1 item …"),
    ("http", "url: 'http://a', body: '('", ".body: is no regular expression: missing ), …"),
    ("http", "url: 'http://a', headers: {a b: c}", ".headers.a b: is no name of a header"),
    ("http", "url: 'http://a', headers: {A: b, a: b}", ".headers: has a header twice; …"),
    ("http", "url: 'http://a', headers: {Expect: a}", ".headers.Expect: is not for a check …"),
    ("http", 'url: "http://a", headers: {a: "b\\nc"}', ".headers.a: is no value of a header: …"),
    ("http", "url: 'http://a', headers: {a: 1}", ".headers.a: must be text; put it in quotes"),
    ("http", "url: 'http://a', verify: 2", ".verify: input should be a valid boolean, …"),
    ("http", f"url: 'http://a', unix: /{LONG}", f".unix: /{LONG} is longer than 107 bytes; …"),
]

BAD: dict[str, Bad] = {
    # The file itself.
    "missing": raw(lambda path: None, "1: No such file or directory"),
    "folder": raw(Path.mkdir, "1: is a folder; name the file in it"),
    "fifo": raw(os.mkfifo, "1: is no regular file; only those are read"),
    "device": raw(
        lambda path: path.symlink_to("/dev/zero"), "1: is no regular file; only those are read"
    ),
    "unreadable": raw(unreadable, "1: Input/output error"),
    "link to itself": raw(
        lambda path: path.symlink_to(path), "1: Too many levels of symbolic links"
    ),
    "over 10 MB": raw(sparse, "1: is larger than 10 MB"),
    "empty": raw("", "1: is empty"),
    "comments only": raw("# nothing\n", "1: is empty"),
    "binary": raw(b"\x7fELF\x02\x01\x01\0\xff", "1: is no text in UTF-8"),
    "no UTF-8": raw(GOOD.encode() + b"# caf\xe9\n", "3: is no text in UTF-8"),
    "control character": raw(
        f"{GOOD}# \x07\n", "3: has the character U+0007 in it, which is no text"
    ),
    "no mapping": raw("- processes\n", "1: must be a mapping of keys to values"),
    "just a word": raw("hello\n", "1: must be a mapping of keys to values"),
    # Syntax.
    "tab": raw(
        f"{GOOD}env_file:\n\tx: y\n",
        "4: …found character that cannot start any token; a tab cannot indent, use spaces",
    ),
    "open bracket": raw(
        f"{GOOD}- {{name: bad, args: [\n", "3: a [ or { is not closed where the text ends"
    ),
    "open quote": raw(
        f'{GOOD}- {{name: bad, path: "sh}}\n', "3: the quote that begins here is never closed"
    ),
    "indentation": raw(f"{GOOD}  - {{name: bad}}\n", "3: …; check the indentation"),
    "duplicate key": entry("path: sh", "3: the key 'path' stands here twice"),
    "number as key": entry("5: x", "3: the key 5 is no text; put it in quotes"),
    "template": raw(
        f"{GOOD}env_file: {{{{ file }}}}\n",
        "3: a mapping is no key; put what has {{ in it in quotes",
    ),
    "two documents": raw(
        f"{GOOD}---\n{GOOD}", "3: a second document begins here; a file holds one"
    ),
    "unknown tag": entry(
        "args: !!python/object/apply:os.system [touch started]",
        "3: has the tag '!!python/object/apply:os.system', which means nothing here",
    ),
    "unknown alias": entry(
        "args: *nobody", "3: there is no anchor &nobody before the alias *nobody"
    ),
    "alias bomb": raw(bomb(), "8: has more than 50000 keys and values"),
    "text bomb": raw(
        f"x-a: &a {'x' * 100_000}\n{GOOD}x-b: [{'*a, ' * 200}]\n",
        "4: has aliases for more than 10 MB of text",
    ),
    "deep nesting": raw(f"{GOOD}x-deep: {nested(5_000)}\n", "3: is nested too deeply"),
    "too many values": raw(
        f"{GOOD}x-many: [{'1,' * 60_000}]\n", "3: has more than 50000 keys and values"
    ),
    "JSON syntax": raw(in_json({}, 1).replace('"sh"', '"sh",,'), "12: …", name="m.json"),
    "JSON wrong type": raw(
        in_json({"timeout": "soon"}, 1), f"13: processes.bad.timeout: {NUMBER}", name="m.json"
    ),
    "TOML syntax": raw(
        f"{TOML}timeout = \n", "8: invalid value; put text in quotes", name="m.toml"
    ),
    "TOML duplicate key": raw(
        f'{TOML}path = "sh"\n',
        "8: cannot overwrite a value; a key stands here twice",
        name="m.toml",
    ),
    "TOML unknown key": raw(
        f"{TOML}tiemout = 5\n",
        "8: processes.bad.tiemout: unknown key; did you mean 'timeout'?",
        name="m.toml",
    ),
    "TOML date": raw(
        f"{TOML}timeout = 2024-01-01\n",
        "8: processes.bad.timeout: input should be a valid number",
        name="m.toml",
    ),
    # Keys and types.
    "no processes": raw(
        "stop_within_sec: 5\n",
        "1: processes: there is nothing to run; name processes, services, or tasks",
    ),
    "empty processes": raw(
        "processes: []\n",
        "1: processes: there is nothing to run; name processes, services, or tasks",
    ),
    "processes by name": raw(
        "processes:\n  healthy: {path: touch, args: [started]}\n",
        "1: processes: input should be a valid list",
    ),
    "process that is none": raw(
        f"{GOOD}- sh\n", "3: processes.1: must be a mapping of keys to values"
    ),
    "unknown key": process("tiemout: 5", "tiemout: unknown key; did you mean 'timeout'?"),
    "unknown key like none": process("zzz: 5", "zzz: unknown key"),
    "unknown key at the top": top(
        "stop_within: 5", "stop_within: unknown key; did you mean 'stop_within_sec'?"
    ),
    "unknown key in a block": process(
        "restart: {dealy_sec: 1}", "restart.dealy_sec: unknown key; did you mean 'delay_sec'?"
    ),
    "unknown key in a dependency": process(
        "dependencies: [{name: healthy, conditon: ready}]",
        "dependencies.healthy.conditon: unknown key; did you mean 'condition'?",
    ),
    "key with a line break": process('"a\\nb": 5', "a\\nb: unknown key"),
    "internal key": process(
        "replica_of: healthy", "replica_of: unknown key; did you mean 'replicas'?"
    ),
    "wrong type": process("args: -v", "args: input should be a valid list"),
    "number as text": process("args: [8080]", "args.0: must be text; put it in quotes"),
    "truth as text": process("env: {DEBUG: yes}", "env.DEBUG: must be text; put it in quotes"),
    "truth as number": process("timeout: true", "timeout: must be a number, not true or false"),
    "text as truth": process(
        "restart_dependents: perhaps",
        "restart_dependents: input should be a valid boolean, unable to interpret input",
    ),
    "variable without a name": process(
        'env: {"": x}', "env.'': the name of a variable must not be empty nor contain '='"
    ),
    **{
        f"variable {name}": process(
            f"env: {{{name}: x, OTHER: y}}",
            f"env.{name}: is ours to set, for it tells whose a process is; leave it out",
        )
        for name in ("RUNTIME_UNIT", "RUNTIME_TREE")
    },
    "NUL in an argument": process('args: ["a\\0b"]', "args.0: must not contain a NUL character"),
    "NUL in a path": top(
        'run_directory: "a\\0b"', "run_directory: must not contain a NUL character"
    ),
    # Names and edges.
    "name missing": raw(f"{GOOD}- {{path: sh}}\n", "3: processes.1.name: is missing"),
    "name with a slash": raw(
        f"{GOOD}- {{name: a/b, path: sh}}\n",
        "3: processes.a/b.name: string should match pattern '^[^/\\x00-\\x1f]+$'",
    ),
    "long name": raw(
        f"{GOOD}- {{name: {'a' * 300}, path: sh}}\n",
        f"3: processes.{'a' * 100}….name: string should have at most 200 characters",
    ),
    "duplicate name": raw(
        f"{GOOD}- {{name: healthy, path: sh}}\n",
        "3: processes.healthy.name: there is already a process 'healthy'",
    ),
    "name of a replica": raw(
        f"{GOOD}- {{name: a, path: sh, replicas: 2}}\n- {{name: a-1, path: sh}}\n",
        "4: processes.a-1.name: there is already a process 'a-1'",
    ),
    "unknown dependency": process(
        "dependencies: [healhty]",
        "dependencies.0: there is no process 'healhty'; did you mean 'healthy'?",
    ),
    "unknown condition": process(
        "dependencies: [{name: healthy, condition: done}]",
        "dependencies.healthy.condition: input should be 'started', …",
    ),
    "self-dependency": process(
        "dependencies: [bad]", "dependencies: circular dependency: bad -> bad"
    ),
    "cycle": process(
        "dependencies: [other]",
        "dependencies: circular dependency: bad -> other -> bad",
        rest="- {name: other, path: sh, dependencies: [bad]}\n",
    ),
    "cycle of replicas": process(
        "replicas: 2, dependencies: [bad]", "dependencies: circular dependency: bad-0 -> bad-0"
    ),
    "condition that is never met": process(
        "dependencies: [{name: healthy, condition: completed}]",
        "dependencies.healthy: 'healthy' never completes, …`shutdown_strategy: do_not_restart`",
    ),
    "too many edges": raw(
        GOOD + "".join(f"- {crowd(n)}\n" for n in range(5)),
        "6: processes.g3.dependencies: there are more than 50000 of them, replicas counted",
    ),
    # Groups.
    "groups are no list": top("groups: {name: g}", "groups: input should be a valid list"),
    "group without a name": top(
        "groups: [{strategy: one_for_all, members: [healthy]}]", "groups.0.name: is missing"
    ),
    "group without a strategy": top(
        "groups: [{name: g, members: [healthy]}]", "groups.g.strategy: is missing"
    ),
    "unknown strategy of a group": group(
        "strategy: all_for_one, members: [healthy]",
        "strategy: input should be 'one_for_all' or 'rest_for_one'",
    ),
    "group without members": group(f"{ALL}, members: []", "members: list should have at least 1 …"),
    "unknown key of a group": group(
        f"{ALL}, members: [healthy], membrs: []", "membrs: unknown key; did you mean 'members'?"
    ),
    "unknown member": group(
        f"{ALL}, members: [healhty]",
        "members.0: there is no unit 'healhty'; did you mean 'healthy'?",
    ),
    "group as a member": group(f"{ALL}, members: [healthy, g]", "members.1: there is no unit 'g'"),
    "member twice": group(
        f"{ALL}, members: [healthy, healthy]",
        "members.1: 'healthy' is in this group already; a unit is in one group, and once",
    ),
    "member of two groups": raw(
        f"{GOOD}groups:\n- {{name: f, {ALL}, members: [healthy]}}\n"
        f"- {{name: g, {ALL}, members: [healthy]}}\n",
        "5: groups.g.members.0: 'healthy' is in group 'f' already; a unit is in one group, …",
    ),
    "replica of a member": raw(
        f"processes:\n- {{name: a, path: sh, replicas: 2}}\n"
        f"groups: [{{name: g, {ALL}, members: [a, a-1]}}]\n",
        "3: groups.g.members.1: 'a-1' is in this group already; a unit is in one group, and once",
    ),
    "group named as a unit": top(
        f"groups: [{{name: healthy, {ALL}, members: [healthy]}}]",
        "groups.healthy.name: there is already a process 'healthy'",
    ),
    "two groups of one name": top(
        f"groups: [{{name: g, {ALL}, members: [healthy]}}, {{name: g, {ALL}, members: [nobody]}}]",
        "groups.g.members.0: there is no unit 'nobody'",
        "groups.g.name: there is already a group 'g'",
    ),
    "one bad group beside another": top(
        f"groups: [{{name: f, {ALL}}}, {{name: g, {ALL}, members: [nobody]}}]",
        "groups.f.members: is missing",
        "groups.g.members.0: there is no unit 'nobody'",
    ),
    "autostart is no truth value": process(
        "autostart: perhaps",
        "autostart: input should be a valid boolean, unable to interpret input",
    ),
    # Programs.
    "path missing": raw(f"{GOOD}- {{name: bad}}\n", "3: processes.bad.path: is missing"),
    "missing executable": raw(
        f"{GOOD}- {{name: bad, path: no-such-program}}\n",
        "3: processes.bad.path: there is no 'no-such-program' in FOLDER nor on PATH",
    ),
    "missing file": raw(
        f"{GOOD}- {{name: bad, path: ./no/such}}\n",
        "3: processes.bad.path: there is no program FOLDER/no/such",
    ),
    "directory as executable": raw(
        f"{GOOD}- {{name: bad, path: /etc}}\n",
        "3: processes.bad.path: /etc is a folder, not a program",
    ),
    "not executable": raw(
        f"{GOOD}- {{name: bad, path: ./m.yaml}}\n",
        "3: processes.bad.path: FOLDER/m.yaml is not executable; `chmod +x` it",
    ),
    "wildcard without match": raw(
        f"{GOOD}- {{name: bad, path: ./none-*}}\n",
        "3: processes.bad.path: nothing matches 'none-*' in FOLDER; it must be exactly one",
    ),
    "wildcard with two matches": raw(
        f"{GOOD}- {{name: bad, path: /bin/*sh}}\n", "3: processes.bad.path: …it must be exactly one"
    ),
    "wildcard over the disk": raw(
        f"{GOOD}- {{name: bad, path: '/**/**/x*'}}\n",
        "3: processes.bad.path: '/**/**/x*' leads to too many files; name more of its folders",
    ),
    "long path": raw(
        f"{GOOD}- {{name: bad, path: {'x' * 5_000}}}\n",
        "3: processes.bad.path: is longer than 4095 bytes; no path may be",
    ),
    "command and path": entry(
        "command: ls",
        "3: processes.bad: has both `command` and `path` or `args`; leave one of them out",
    ),
    "empty command": raw(
        f"{GOOD}- {{name: bad, command: ''}}\n",
        "3: processes.bad.command: string should have at least 1 character",
    ),
    "missing working directory": process(
        "working_directory: gone", "working_directory: there is no such folder"
    ),
    # Numbers.
    "negative time": process("timeout: -1", f"timeout: {FROM_ZERO}"),
    "time that is no number": process("timeout: .nan", f"timeout: {FINITE}"),
    "infinite time": process("ready_timeout_sec: .inf", f"ready_timeout_sec: {FINITE}"),
    "stop without time": top(
        "stop_within_sec: 0", "stop_within_sec: input should be greater than 0"
    ),
    "negative kill timeout": top("kill_timeout: -5", f"kill_timeout: {FROM_ZERO}"),
    "endless number": entry(
        f"timeout: {'9' * 200}",
        "3: is a number of more than 100 characters; put it in quotes if it is text",
    ),
    "delay above its cap": process(
        "restart: {delay_sec: 60}",
        "restart: delay_sec is above max_delay_sec (30 unless set); raise that as well",
    ),
    "shrinking delays": process(
        "restart: {factor: 0.5}", "restart.factor: input should be greater than or equal to 1"
    ),
    "unknown restart": process(
        "restart: {when: sometimes}", "restart.when: input should be 'always', 'failure' or 'never'"
    ),
    "unknown shutdown strategy": process(
        "shutdown_strategy: explode",
        "shutdown_strategy: input should be 'restart', 'do_not_restart' or 'shutdown_everything'",
    ),
    "unknown signal": process(
        "stop_signal: SIGTREM",
        "stop_signal: there is no signal 'SIGTREM' here; SIGTERM, SIGINT and SIGQUIT are usual",
    ),
    "exit code that is none": process(
        "success_exit_codes: [0, 256]",
        "success_exit_codes.1: must be an exit code from 0 to 255, or the name of a signal",
    ),
    "exit code of many digits": process(
        "success_exit_codes: ['100000000000000000003']",
        "success_exit_codes.0: must be an exit code from 0 to 255, or the name of a signal",
    ),
    "exit code below zero": process(
        "success_exit_codes: [-15]",
        "success_exit_codes.0: must be an exit code from 0 to 255, or the name of a signal",
    ),
    "truth value as an exit code": process(
        "success_exit_codes: [true]",
        "success_exit_codes.0: must be an exit code from 0 to 255, or the name of a signal",
    ),
    "exit by an unknown signal": process(
        "success_exit_codes: [SIGTREM]",
        "success_exit_codes.0: there is no signal 'SIGTREM' here; SIGTERM, SIGINT and SIGQUIT are"
        " usual",
    ),
    "no exit code": process(
        "success_exit_codes: []",
        "success_exit_codes: list should have at least 1 item after validation, not 0",
    ),
    "no time to run": process("max_run_sec: 0", "max_run_sec: input should be greater than 0"),
    "empty stop command": process(
        "stop_command: []",
        "stop_command: list should have at least 1 item after validation, not 0",
    ),
    "stop command in one line": process(
        'stop_command: "nginx -s quit"', "stop_command: input should be a valid list"
    ),
    "missing stop command": process(
        "stop_command: [bin/halt, quit]", "stop_command.0: there is no program FOLDER/bin/halt"
    ),
    "stop command that is not on PATH": process(
        "stop_command: [no-such-program]",
        "stop_command.0: there is no 'no-such-program' in FOLDER nor on PATH",
    ),
    "unknown way with failing hooks": process(
        "hook_failure: retry", "hook_failure: input should be 'fail' or 'ignore'"
    ),
    "CPU that is not there": process(
        "affinity: [0, 100000]", f"affinity.1: there is no CPU 100000 here, only 0 to {CPUS - 1}"
    ),
    "CPUs in both spellings": entry(
        "affinity: [0], processor_affinity: [0]",
        "3: processes.bad: has both `affinity` and `processor_affinity`; leave one of them out",
    ),
    "no CPU": process(
        "processor_affinity: []", "processor_affinity: names no CPU; leave it out for all of them"
    ),
    "CPU by name": process(
        "affinity: [one]",
        "affinity.0: input should be a valid integer, unable to parse string as an integer",
    ),
    "no replica": process("replicas: 0", "replicas: input should be greater than or equal to 1"),
    "too many replicas": process(
        "replicas: 1001", "replicas: input should be less than or equal to 1000"
    ),
    "half a replica": process(
        "replicas: 1.5",
        "replicas: input should be a valid integer, got a number with a fractional part",
    ),
    "too many processes": raw(
        f"{GOOD}- {{name: bad, path: sh, replicas: 1000}}\n",
        "1: processes: there are more than 1000 processes, replicas counted, or too large ones",
    ),
    # Readiness.
    "missing readiness parameter": process(
        "ready_strategy: tcp", "ready_params.port: is missing; the tcp strategy needs it, or `unix`"
    ),
    "missing path of readiness": process(
        "ready_strategy: file, ready_params: {}",
        "ready_params.path: is missing; the file strategy needs it",
    ),
    "path of readiness that is none": process(
        "ready_strategy: pipe, ready_params: {path: [x]}", "ready_params.path: must be a path"
    ),
    "port out of range": process(
        "ready_strategy: tcp, ready_params: {port: 70000}",
        "ready_params.port: must be a number from 1 to 65535",
    ),
    "parameters that are none": process(
        "ready_strategy: tcp, ready_params: 5432",
        "ready_params: input should be a valid dictionary",
    ),
    **{
        f"readiness by {params}": entry(
            f"ready_strategy: {strategy}, ready_params: {{{params}}}",
            *(f"3: processes.bad.ready_params{line}" for line in lines),
        )
        for strategy, params, *lines in READINESS
    },
    "parameters of a socket that is ours": process(
        "ready_strategy: notify, ready_params: {path: x}", "ready_params.path: unknown key"
    ),
    # Health.
    "watchdog of no time": process(
        "watchdog_sec: 0", "watchdog_sec: input should be greater than or equal to 0.01"
    ),
    "watchdog that is none": process("watchdog_sec: yes", "watchdog_sec: must be a number, …"),
    "variable that the watchdog needs": process(
        "watchdog_sec: 2, env: {WATCHDOG_PID: a}",
        "env.WATCHDOG_PID: is ours to set, because of `watchdog_sec`; leave it out",
    ),
    "variable that notify needs": process(
        "ready_strategy: notify, env: {NOTIFY_SOCKET: x, LISTEN_FDS: a}",
        "env.NOTIFY_SOCKET: is ours to set, because of `ready_strategy`; leave it out",
    ),
    "health of nothing": process(
        "health: {}",
        "health.strategy: is missing, for there is no `ready_strategy` to ask again;"
        " write one of tcp, http, exec, file, or a plugin's",
    ),
    **{
        f"health by {strategy}": process(
            f"ready_strategy: {strategy}, ready_params: {params}, health: {{}}",
            f"health.strategy: '{strategy}' waits for a moment, and cannot be asked again;"
            " write one of tcp, http, exec, file, or a plugin's",
        )
        for strategy, params in (
            ("pipe", "{path: p}"),
            ("log", "{pattern: up}"),
            ("notify", "{}"),
        )
    },
    "health without a parameter": process(
        "health: {strategy: tcp}", "health.params.port: is missing; the tcp strategy needs it, …"
    ),
    "health of no port": process(
        "ready_strategy: tcp, ready_params: {port: 80}, health: {params: {port: 70000}}",
        "health.params.port: must be a number from 1 to 65535",
    ),
    "health that is asked once, of a bad port": process(
        "ready_strategy: tcp, ready_params: {port: 70000}, health: {}",
        "ready_params.port: must be a number from 1 to 65535",
    ),
    "health all the time": process(
        "health: {strategy: file, params: {path: x}, interval_sec: 0}",
        "health.interval_sec: input should be greater than or equal to 0.01",
    ),
    "health that never fails": process(
        "health: {strategy: file, params: {path: x}, failures: 0}",
        "health.failures: input should be greater than or equal to 1",
    ),
    "health with an unknown key": process(
        "health: {strategy: file, params: {path: x}, intervall_sec: 1}",
        "health.intervall_sec: unknown key; did you mean 'interval_sec'?",
    ),
    "health that is none": process("health: yes", "health: …"),
    # Variables.
    "missing variable": process(
        'args: ["${NEVER_SET_ANYWHERE}"]',
        f"args.0: {UNSET}",
    ),
    "malformed reference": process(
        'args: ["${1}"]',
        "args.0: '${1}' is neither ${NAME} nor ${NAME:-default}; write $${ where …",
    ),
    "variable behind replicas": entry(
        "replicas: 3", f"4: processes.next.args.0: {UNSET}", rest=f"- {{name: next, {ARGS}}}\n"
    ),
    "missing env_file": top(
        "env_file: gone.env", "env_file: FOLDER/gone.env: there is no such file"
    ),
    "malformed env_file": top(
        "env_file: e", "env_file: FOLDER/e:2: is no line of the form NAME=value", e="A=1\n=2\n"
    ),
    "variable of ours in the env_file": top(
        "env_file: e",
        "env_file: FOLDER/e:2: RUNTIME_UNIT is ours to set, for it tells whose a process is;"
        " leave it out",
        e="A=1\nexport RUNTIME_UNIT='x'\n",
    ),
    "variables of variables": top(
        "env_file: e",
        "env_file: FOLDER/e:6: is larger than 1 MB with its variables put in",
        e="A0=0123456789\n" + "".join(f"A{n}={f'${{A{n - 1}}}' * 10}\n" for n in range(1, 9)),
    ),
    # Secrets.
    "secret argument": process(
        'args: ["${secret://env/HOME}"]',
        "args.0: a secret may not be here: everybody on this host can read the arguments of a"
        " process; put it into its `env`, and let the program take it from there",
    ),
    "secret in a check": process(
        'ready_strategy: tcp, ready_params: {port: "${secret://env/HOME}"}',
        "ready_params.port: a secret may not be here, only in the `env` of a process or in the"
        " `configuration` of a service",
    ),
    "secret that is not there": process(
        'env: {K: "${secret://file/gone}"}',
        "env.K: the secret FOLDER/gone is not there: no such file",
    ),
    "secret of nowhere": process(
        'env: {K: "${secret://vault/x}"}',
        "env.K: '${secret://vault/x}' is no secret; write ${secret://file/PATH} or"
        " ${secret://env/NAME}",
    ),
    # Users and limits.
    "unknown user": process(
        "user: nobodyy", "user: there is no user 'nobodyy'; did you mean 'nobody'?"
    ),
    "user that is none": process("user: [x]", "user: must be a name or a number"),
    "unknown group": process(
        "group: no-such-group-here", "group: there is no group 'no-such-group-here'"
    ),
    "nice out of range": process("nice: 20", "nice: input should be less than or equal to 19"),
    "umask that is none": process("umask: rwx", 'umask: must be octal digits, such as "027"'),
    "ambiguous umask": process(
        "umask: 77", 'umask: 77 is ambiguous; write octal digits in quotes: "077" or "115"'
    ),
    "unknown limit": process(
        "rlimits: {nofiles: 5}", "rlimits.nofiles: there is no such limit; did you mean 'nofile'?"
    ),
    "limits that are none": process(
        "rlimits: {core: [1, 2, 3]}", "rlimits.core: a pair has two limits, [soft, hard]"
    ),
    "soft above hard": process(
        "rlimits: {core: [2, 1]}", "rlimits.core: the soft limit 2 is above the hard one, 1"
    ),
    # Logs.
    "two logs in one file": entry(
        "log: {file: x.log}",
        "4: processes.other.log.file: 'bad' writes to this file already; choose another",
        rest="- {name: other, path: sh, log: {file: x.log}}\n",
    ),
    "log of replicas": process(
        "replicas: 2, log: {file: x.log}",
        "log.file: all replicas would write to this file; put ${REPLICA} into it",
    ),
    "log in a folder's place": process("log: {file: .}", "log.file: FOLDER is a folder"),
    "log without a file": process("log: {keep: 3}", "log.file: is missing"),
    "ceilings that name none": process(
        "ceilings: {for_sec: 3}", "ceilings: names no ceiling; give memory_mb, cpu_percent, or both"
    ),
    "a ceiling of nothing": process(
        "ceilings: {memory_mb: 0}", "ceilings.memory_mb: input should be greater than 0"
    ),
    "a ceiling that is no number": process(
        "ceilings: {cpu_percent: much}", f"ceilings.cpu_percent: {NUMBER}"
    ),
    "a ceiling that is infinite": process(
        "ceilings: {cpu_percent: .inf}", f"ceilings.cpu_percent: {FINITE}"
    ),
    "a ceiling for a time before": process(
        "ceilings: {memory_mb: 1, for_sec: -1}", f"ceilings.for_sec: {FROM_ZERO}"
    ),
    "a ceiling of whom": process(
        "ceilings: {memory_mb: 1, of: host}",
        "ceilings.of: input should be 'process' or 'family'",
    ),
    "an unknown ceiling": process(
        "ceilings: {memory: 1}",
        "ceilings.memory: unknown key; did you mean 'memory_mb'?",
    ),
    "ceilings that are no mapping": process(
        "ceilings: 500", "ceilings: must be a mapping of keys to values"
    ),
    "a period of nothing": top(
        "stats_interval_sec: 0.001",
        "stats_interval_sec: input should be greater than or equal to 0.01",
    ),
    "a period that is true": top(
        "stats_interval_sec: true", "stats_interval_sec: must be a number, not true or false"
    ),
    "log without a size": process(
        "log: {file: x.log, max_mb: 0}", "log.max_mb: input should be greater than 0"
    ),
    # Services.
    "service without a class": services("name: s", "class: is missing"),
    "service that cannot be asked for its health": services(
        "name: s, class: runtime.service.plain:idle, health: {}",
        "health: cannot be asked for its health; override check_health in its ServiceManager"
        " (a function…",
    ),
    "service with the health of a process": services(
        "name: s, class: runtime.service.plain:idle, health: {strategy: tcp}",
        "health.strategy: unknown key…",
    ),
    "service of no class": services(
        "name: s, class: 'runtime.service.plain:idel'",
        "class: …has no 'idel'; did you mean 'idle'?",
    ),
    "service of no module": services(
        "name: s, class: 'no.such:S'", "class: …ModuleNotFoundError: …"
    ),
    "service that exits": services(
        "name: s, class: 'exits_at_once:S'",
        "class: module 'exits_at_once' cannot be imported: SystemExit: 0",
    ),
    "service with an unknown key": services(
        "name: s, class: 'runtime.service.plain:idle', tiemout: 1",
        "tiemout: unknown key; did you mean 'timeout'?",
    ),
    "service of a process's name": raw(
        f"{GOOD}services:\n- {{name: healthy, class: 'runtime.service.plain:idle'}}\n",
        "4: services.healthy.name: there is already a process 'healthy'",
    ),
    # Plugins.
    "missing plugin folder": top("plugins: gone", "plugins: there is no such folder"),
    "plugin that raises": plugins(
        "raise OSError('so\\nwhat')",
        "4: plugins: FOLDER/p.py cannot be imported: OSError: so\\nwhat",
    ),
    "plugin that is no Python": plugins(
        "def broken(:",
        "4: plugins: FOLDER/p.py cannot be imported: SyntaxError: invalid syntax (p.py, line 2)",
    ),
    "plugin that exits": plugins(
        "raise SystemExit(0)", "4: plugins: FOLDER/p.py cannot be imported: SystemExit: 0"
    ),
    "plugin that wants more": plugins(
        "class P(Plugin):\n    def __init__(self, x): ...",
        "4: plugins: FOLDER/p.py has a plugin P that cannot be made: TypeError: …'x'",
    ),
    "plugin that fails to say": plugins(
        "class P(Plugin):\n    def get_control_servers(self): return 1 / 0",
        "4: plugins: …of the plugin P raised ZeroDivisionError: division by zero",
    ),
    "plugin that says nothing": plugins(
        "class P(Plugin):\n    def get_stats_handlers(self): pass",
        "4: plugins: get_stats_handlers of the plugin P returned no mapping but NoneType",
    ),
    "plugin with a wrong event": plugins(
        "class P(Plugin):\n    def get_lifecycle_hooks(self): return {'x': {'prestart': [print]}}",
        "4: plugins: …P has for 'x' the event 'prestart', …; did you mean 'pre_start'?",
    ),
    "plugin with a hook that is in no list": plugins(
        "class P(Plugin):\n    def get_lifecycle_hooks(self): return {'x': {'pre_start': print}}",
        "4: plugins: …P has for 'x' and pre_start no list of functions but …",
    ),
    "unknown hook": plugins(
        HOOKS,
        "3: processes.bad.lifecycle_hooks.0: …'anounce'; did you mean 'announce'?",
        fields="lifecycle_hooks: [anounce]",
    ),
    "unknown strategy": plugins(
        HOOKS,
        "3: processes.bad.ready_strategy: no plugin provides 'answer'; did you mean 'answers'?",
        fields="ready_strategy: answer",
    ),
    "unknown strategy of health": plugins(
        HOOKS,
        "3: processes.bad.health.strategy: no plugin provides 'answer'; did you mean 'answers'?",
        fields="health: {strategy: answer}",
    ),
    "unknown handler": plugins(
        HOOKS,
        "3: processes.bad.stat_handlers.0: no plugin provides 'exports'; did you mean 'export'?",
        fields="stat_handlers: [exports]",
    ),
    "unknown control server": Bad(
        f"{GOOD}plugins: .\ncontrol_server: telnot\n",
        ("4: control_server: no plugin provides 'telnot'; did you mean 'telnet'?",),
        others={"p.py": f"from runtime import Plugin\n{HOOKS}"},
    ),
    "no plugin at all": top("control_server: http", "control_server: no plugin provides 'http'"),
    # HTTP.
    "http address without a port": top("http: localhost", "http: must be HOST:PORT, or unix:PATH"),
    "http address that is a port": top(
        "http: 8410",
        "http: must be an address such as 127.0.0.1:8410 or unix:run/http.sock,"
        " or {bind: ADDRESS, hosts: [NAME], token_file: PATH}, or off",
    ),
    "http address of a list": top("http: [off]", "http: must be an address such as …, or off"),
    "http address in an unknown key": top(
        'http: {bnid: "127.0.0.1:8410"}', "http.bnid: unknown key; did you mean 'bind'?"
    ),
    "http address that is a number": top(
        "http: {bind: 8410}", "http.bind: must be text; put it in quotes"
    ),
    "http address with an IPv6 address in no brackets": top(
        'http: "::1:8410"', "http: has an IPv6 address, which needs brackets: [::1]:8409"
    ),
    "http port beyond all": top(
        "http: localhost:65536",
        "http: has no port from 0 to 65535 at its end; 0 takes a free one",
    ),
    "http socket without a path": top('http: "unix:"', "http: must name a file behind unix:"),
    "http socket that is too long below the base directory": top(
        f"http: 'unix:{'x' * 100}'", "http: is too long for a socket: …"
    ),
    "http host with a port": top(
        'http: {hosts: ["shop.example:80"]}', "http.hosts.0: string should match pattern …"
    ),
    "http host that is no list": top(
        "http: {hosts: shop.example}", "http.hosts: input should be a valid tuple"
    ),
    "http address that is not set": top("http: ${NEVER_SET_ANYWHERE}", f"http: {UNSET}"),
    "http address in the long form": top(
        "http: {bind: localhost}", "http.bind: must be HOST:PORT, or unix:PATH"
    ),
    "unknown names beside all that is wrong": entry(
        "tiemout: 5, lifecycle_hooks: [none], ready_strategy: [x]",
        "3: processes.bad.lifecycle_hooks.0: no plugin provides 'none'",
        "3: processes.bad.ready_strategy: input should be a valid string",
        "3: processes.bad.tiemout: unknown key; did you mean 'timeout'?",
        "4: control_server: no plugin provides 'tpc'; did you mean 'tcp'?",
        rest="control_server: tpc\n",
    ),
    # Tasks and jobs.
    "tasks that are none": Bad(
        f"{GOOD}tasks: []\njobs: [{{name: j, task: fail, dependencies: [runner]}}]\n",
        ("3: tasks: must be a mapping of keys to values",),
    ),
    "tasks without a module": tasks("", "3: tasks.modules: names no module; …"),
    "tasks in a store of no kind": tasks(
        "modules: [shop_tasks], state_backend: 'sqlit:///x'",
        "3: tasks.state_backend: there is no state backend for 'sqlit:///x'; did you mean …",
    ),
    "tasks in a store without a scheme": tasks(
        "modules: [shop_tasks], state_backend: x.db",
        "3: tasks.state_backend: there is no state backend for 'x.db' (there are: …)",
    ),
    "tasks in a folder that is not there": tasks(
        "modules: [shop_tasks], state_backend: 'sqlite:///nowhere/jobs.db'",
        "3: tasks.state_backend: …/nowhere/jobs.db: there is no folder …",
    ),
    "tasks in a store without a file": tasks(
        "modules: [shop_tasks], state_backend: 'sqlite://'",
        "3: tasks.state_backend: …the URL names no file; write sqlite:///jobs.db",
    ),
    "tasks in a module that is not there": tasks(
        "modules: [nowhere_tasks]",
        "3: tasks.modules.0: module 'nowhere_tasks' cannot be imported: ModuleNotFoundError: …",
        rest="jobs: [{name: j, task: fail}]",
    ),
    "tasks in a module that raises": tasks(
        "modules: [shop_tasks, raising_tasks]",
        "3: tasks.modules.1: module 'raising_tasks' cannot be imported: ValueError: no",
        raising_tasks="raise ValueError('no')",
    ),
    "tasks in a module without any": tasks(
        "modules: [bare_tasks]",
        "3: tasks.modules.0: module 'bare_tasks' has no task; make one with @app.task",
        bare_tasks="",
    ),
    "tasks in a module that is a number": tasks(
        "modules: [5]",
        "3: tasks.modules.0: must be text; put it in quotes",
        rest="jobs: [{name: j, task: fail, dependencies: [runner]}]",
    ),
    "task whose parameter JSON cannot hold": tasks(
        "modules: [odd_tasks]",
        "3: tasks.modules: task odd_tasks.odd: a parameter cannot go through JSON, …",
        odd_tasks=ODD,
    ),
    "tasks with a lease that no heartbeat keeps": tasks(
        "modules: [shop_tasks], lease_sec: 1, heartbeat_sec: 1",
        "3: tasks.lease_sec: must be longer than heartbeat_sec (1)",
    ),
    "tasks with values out of bounds": tasks(
        "modules: [shop_tasks], quarantine_after: 0, max_pending_sec: 0, keep_results_sec: -1,"
        " heartbeat_sec: soon, modulse: []",
        f"3: tasks.heartbeat_sec: {NUMBER}",
        f"3: tasks.keep_results_sec: {FROM_ZERO}",
        "3: tasks.max_pending_sec: input should be greater than 0",
        "3: tasks.modulse: unknown key; did you mean 'modules'?",
        "3: tasks.quarantine_after: input should be greater than or equal to 1",
    ),
    "runner with values out of bounds": tasks(
        "modules: [shop_tasks], runners:"
        " [{name: r, concurrency: 0, queues: mails, processes: -1, drain_sec: true, x: 1,"
        " recycle_after: 0}]",
        "3: tasks.runners.r.concurrency: input should be greater than or equal to 1",
        "3: tasks.runners.r.drain_sec: must be a number, not true or false",
        f"3: tasks.runners.r.processes: {FROM_ZERO}",
        "3: tasks.runners.r.queues: input should be a valid list",
        "3: tasks.runners.r.recycle_after: input should be greater than or equal to 1",
        "3: tasks.runners.r.x: unknown key",
    ),
    "runner without a name": tasks(
        "modules: [shop_tasks], runners: [{concurrency: 1}]",
        "3: tasks.runners.0.name: is missing",
        "4: jobs.j.task: there is no task 'faill'…",
        rest="jobs: [{name: j, task: faill}]",
    ),
    "runners and jobs by names that are taken": tasks(
        "modules: [shop_tasks], runners: [{name: healthy}, {name: a}, {name: a}]",
        "3: tasks.runners.a.name: there is already a runner 'a'",
        "3: tasks.runners.healthy.name: there is already a process 'healthy'",
        "4: jobs.a.name: there is already a runner 'a'",
        rest="jobs: [{name: a, task: fail}]",
    ),
    "names of the unit that recovers": tasks(
        "modules: [shop_tasks]",
        "4: services.recovery.name: is the name of the unit that goes with runners, …",
        "5: groups.recovery.name: is the name of the unit that goes with runners, …",
        "5: groups.recovery.name: there is already a service 'recovery'",
        rest=f"services: [{{name: recovery, class: '{IDLE}'}}]\n"
        f"groups: [{{name: recovery, {ALL}, members: [healthy]}}]",
    ),
    "jobs without tasks": top(
        "jobs: [{name: j, task: fail}]",
        "jobs.j.task: there are no tasks; name their modules in tasks",
    ),
    "job of an unknown task": jobs(
        "{name: j, task: shop_tasks.doubel}",
        ".j.task: there is no task 'shop_tasks.doubel'; did you mean 'shop_tasks.double'?",
    ),
    "job of one of two tasks": tasks(
        "modules: [shop_tasks, rival_tasks]",
        "4: jobs.j.task: several tasks are named 'fail'; say which: rival_tasks.fail, …",
        rest="jobs: [{name: j, task: fail}]",
        rival_tasks=TASKS,
    ),
    "jobs with arguments that do not fit": jobs(
        "{name: a, task: double}, {name: b, task: double, arguments: {number: x}},"
        " {name: c, task: double, arguments: {number: 1, nmber: 2}},"
        " {name: d, task: double, arguments: [1]}",
        ".a.arguments: number: field required",
        ".b.arguments: number: input should be a valid integer, …",
        ".c.arguments: nmber: extra inputs are not permitted",
        ".d.arguments: input should be a valid dictionary",
    ),
    "jobs that lack what they need": jobs(
        "{name: j}, {task: fail}, {name: k, task: fail, priority: 2000000, queue: ''}",
        ".1.name: is missing",
        ".j.task: is missing",
        ".k.priority: input should be less than or equal to 1000000",
        ".k.queue: string should have at least 1 character",
    ),
    "job that waits for nobody": jobs(
        "{name: j, task: fail, dependencies: [runne, recovery]}",
        ".j.dependencies.0: there is no job or process or runner 'runne'; did you mean 'runner'?",
        ".j.dependencies.1: there is no job or process or runner 'recovery'",
    ),
    "job that waits for the end of a runner": jobs(
        "{name: j, task: fail, dependencies: [{name: runner, condition: completed}]}",
        ".j.dependencies.runner: 'runner' never completes, for it is always restarted; …",
    ),
    # The control server.
    "control server by the name of a process": Bad(
        f"{GOOD}- {{name: tcp, path: sh}}\ncontrol_server: tcp\n",
        ("4: control_server: there is already a process 'tcp', …, too; rename the process",),
    ),
    "control server of a group's name": raw(
        f"{GOOD}control_server: tcp\ngroups: [{{name: tcp, {ALL}, members: [healthy]}}]\n",
        "3: control_server: there is already a group 'tcp', …, too; rename the group",
    ),
    "control server by the name of a service": Bad(
        f"{GOOD}control_server: tcp\nservices: [{{name: tcp, class: '{IDLE}'}}]\n",
        ("3: control_server: there is already a service 'tcp', …; rename the service",),
    ),
    "control server whose name is a path": top(
        "control_server: a/b", "control_server: string should match pattern …"
    ),
    "control server without a name": top(
        'control_server: ""', "control_server: string should have at least 1 character"
    ),
    "control settings of nobody": top(
        "control_params: {bind: x}",
        "control_params: there is no control server to read this; name one as control_server",
    ),
    "control server that is none, with settings": entry(
        "tiemout: 5",
        "3: processes.bad.tiemout: unknown key; did you mean 'timeout'?",
        "4: control_server: input should be a valid string",
        rest="control_server: [tcp]\ncontrol_params: {bind: x}\n",
    ),
    "control settings that are none": top(
        "control_params: 5", "control_params: input should be a valid dictionary"
    ),
    "control settings with an unknown key": control(
        "bnd: 1", "bnd: unknown key; did you mean 'bind'?"
    ),
    "control address that is a number": control(
        "bind: 8409", "bind: must be text such as 127.0.0.1:8409, or unix:run/control.sock"
    ),
    "control address without a host": control(
        'bind: ":8409"', "bind: must be HOST:PORT, or unix:PATH"
    ),
    "control address without a port": control(
        "bind: localhost", "bind: must be HOST:PORT, or unix:PATH"
    ),
    "control address with too high a port": control(
        "bind: localhost:65536",
        "bind: has no port from 0 to 65535 at its end; 0 takes a free one",
    ),
    "control address of IPv6 without brackets": control(
        'bind: "::1:80"', "bind: has an IPv6 address, which needs brackets: [::1]:8409"
    ),
    "control socket without a path": control(
        'bind: "unix:"', "bind: must name a file behind unix:"
    ),
    "control socket with too long a path": control(
        f"bind: unix:{'x' * 108}", "bind: is too long for a socket: … bytes, and not 107 at most"
    ),
}


def place(folder: Path, bad: Bad) -> Path:
    """Write the manifest, and what lies beside it, into *folder* and return its path."""
    folder.mkdir()
    for name, text in bad.others.items():
        (folder / name).write_text(text)
    path = folder / bad.name
    if isinstance(bad.content, str):
        path.write_text(bad.content)
    elif isinstance(bad.content, bytes):
        path.write_bytes(bad.content)
    else:
        bad.content(path)
    return path


def see(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


class Run(NamedTuple):
    """How a run of *path* has ended, and what lay in its folder before and after."""

    path: Path
    status: int
    out: str
    err: str
    before: list[Path]
    after: list[Path]


@pytest.fixture(scope="module")
def loaded(open_loaded: OpenLoaded) -> Iterator[Loaded]:
    """The command line, which loads all that a manifest needs once, and not for each of them.

    Not measured, for there are many of them, and `check` runs the same code in this process.
    """
    environment = {k: v for k, v in os.environ.items() if k != "COVERAGE_PROCESS_CONFIG"}
    with open_loaded(environment | {"PYTHONDONTWRITEBYTECODE": "1"}) as made:
        yield made


def run(loaded: Loaded, path: Path) -> Run:
    """Run *path* as a user does, with a run directory in its own folder, if there is one."""
    before = see(path.parent)
    ended = loaded("run", path, cwd=path.parent)
    return Run(path, ended.returncode, ended.stdout, ended.stderr, before, see(path.parent))


def lines_of(run: Run) -> list[str]:
    return run.err.splitlines()


def fits(line: str, expected: str) -> bool:
    words = ".*".join(map(re.escape, expected.split("…")))
    return re.fullmatch(words, line) is not None


@pytest.mark.parametrize("name", BAD)
def test_it_is_told_with_its_place_and_starts_nothing(
    loaded: Loaded,
    name: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran, expected = run(loaded, place(tmp_path / "bad", BAD[name])), BAD[name].lines
    assert (ran.status, ran.out) == (2, "")
    assert ran.after == ran.before
    said = [line.removeprefix(f"{ran.path}:") for line in lines_of(ran)]
    wanted = [line.replace("FOLDER", str(ran.path.parent)) for line in expected]
    assert len(said) == len(wanted), said
    assert all(map(fits, said, wanted)), said
    monkeypatch.setattr("sys.dont_write_bytecode", True)  # as `check` leaves it
    monkeypatch.setattr("sys.path", [*sys.path])  # a service's folder is added
    assert check([ran.path]) == 2
    assert capfd.readouterr() == ("", ran.err)


def test_a_good_one_starts_what_a_bad_one_must_not(loaded: Loaded, tmp_path: Path) -> None:
    ran = run(
        loaded, place(tmp_path / "good", Bad(GOOD.replace("}", ", restart: {when: never}}"), ()))
    )
    assert ran.status == 0
    assert {path.name for path in ran.after} >= {"m.yaml", "started", "trio-runtime"}


@pytest.mark.parametrize("name", ["unknown key", "plugin that raises"])
def test_a_program_that_loads_everything_itself_says_the_same(
    loaded: Loaded, ask: Ask, name: str, tmp_path: Path
) -> None:
    path = place(tmp_path / "bad", BAD[name])
    ask.folder = path.parent
    fresh = ask.anew("run", path, env={"PYTHONDONTWRITEBYTECODE": "1"})
    again = loaded("run", path, cwd=path.parent)
    assert fresh.returncode == 2
    assert (fresh.stdout, fresh.stderr) == (again.stdout, again.stderr)


def test_there_are_many_kinds() -> None:
    assert len(BAD) >= 60
    held = [
        bad for bad in BAD.values() if isinstance(bad.content, str) and "started" in bad.content
    ]
    assert len(held) >= 60
