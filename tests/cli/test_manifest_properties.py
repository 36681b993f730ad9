"""Whatever a file says, it is a manifest or a list of problems with their places; never more.

Nor does it take more work than its length is worth: what is four times as long takes about four
times as many calls. (Times are not asserted, for machines differ.)
"""

from __future__ import annotations

import json
import re
import string
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, NoneType
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from runtime._plugin_registry import check_plugins
from runtime.manifest import OTHER_SPELLINGS, Manifest, ManifestError, load_manifest
from runtime.process import Process
from runtime.supervision.graph import start_order

ROOT = Path(__file__).parents[2]
MOST_PROCESSES = 1_000
MOST_LINES = 1_001
PROPERTY = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

Judge = Callable[..., Manifest | None]


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Load a manifest that says this, and look at what is said of it; return it if it is fine."""
    monkeypatch.setenv("ODD", "a\nb: ${c}")

    def judge_content(content: str | bytes, name: str = "m.yaml") -> Manifest | None:
        path = tmp_path / name
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        path.write_bytes(data)
        lines: tuple[str, ...] = ()
        manifest = None
        try:
            manifest = load_manifest(path, check=check_plugins)
        except ManifestError as error:
            lines = error.lines
        for line in lines:
            look_at(line, path, data)
        if manifest is None:
            assert 1 <= len(lines) <= MOST_LINES
            return None
        assert len(manifest.entries()) >= 1
        assert len(manifest.processes) <= MOST_PROCESSES
        needs = {entry.name: entry.requirements for entry in manifest.entries()}
        assert len(needs) == len(manifest.entries())
        start_order(needs)  # raises when one is unknown, or there is a circle
        for process in manifest.processes:
            assert process.replicas is None
            assert process.path.is_absolute()
        return manifest

    return judge_content


def look_at(line: str, path: Path, data: bytes) -> None:
    """Check that *line* is one, and that it names a line of the file."""
    assert line.isprintable()
    told = re.fullmatch(r"(\d+): (?=\S)(.*\S)", line.removeprefix(f"{path}:"))
    assert told is not None, line
    # Lines end as each format says; YAML knows the most ends.
    lines = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", data.decode("utf-8", "replace").rstrip())
    assert 1 <= int(told[1]) <= len(lines), line


# --- manifests that are nearly right --------------------------------------------------------------

odd_text = st.sampled_from(
    [
        *("", " ", "sh", "a", "b", "a-0", "a/b", "/", ".", "..", "/etc", "/bin/*", "**", "x*", "["),
        *("\0", "\n", "a\nb", "\x1b[31m", "\x85", "\u2028", "\u202e", "\U0001f40d", "x" * 300),
        *("y/" * 200, "z" * 5_000, "nan", "inf", "-1", "1e999", "0x10", "1_0", "true", "null", "٣"),
        *(
            "${ODD}",
            "${HOME}",
            "${NOBODY_SETS_IT}",
            "${NOBODY_SETS_IT:-}",
            "${REPLICA}",
            "$${",
            "${",
        ),
        *(
            "${1}",
            "${A:-${B}}",
            "x${REPLICA}.log",
            "tcp",
            "file",
            "pipe",
            "http",
            "exec",
            "log",
            "ready",
            "always",
        ),
        *("SIGTERM", "SIGKILL", "root", "nobody", "unlimited", "027", "1979-05-27", "<<", "=", "~"),
    ]
)
numbers = (
    st.integers(-3, 70_000)
    | st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 4294967294])
    | st.floats()
)
junk = st.recursive(
    st.none() | st.booleans() | numbers | odd_text | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=6,
)
# Not too many of them, or of a kind that a machine has thousands of.
SMALL: Mapping[str, st.SearchStrategy[Any]] = {
    "replicas": st.integers(1, 4) | st.sampled_from(["2", "2.0", 3.0, 0, 1001, True]),
    "name": st.sampled_from(["a", "b", "c", "api"]),
    "path": st.sampled_from(["sh", "/bin/sh", "true", "./m.yaml", "nope"]),
    "dependencies": st.lists(
        st.sampled_from(["a", "b", "c", "nobody", {"name": "a", "condition": "completed"}])
    ),
    "ready_params": st.fixed_dictionaries(
        {},
        optional={
            "port": numbers | odd_text,
            "path": odd_text | junk,
            "host": junk,
            "url": st.just("http://[::1]:8000/") | odd_text | junk,
            "status": numbers | junk,
            "pattern": odd_text | junk,
            "body": odd_text,
            "headers": junk,
            "unix": odd_text,
            "command": st.lists(odd_text) | junk,
        },
    ),
    "env_file": st.sampled_from(["m.yaml", "gone", ".", "/dev/null"]),
    "class_path": st.sampled_from(
        ["runtime.service.plain:idle", "no.such.module:x", "json:dumps", "json:nothing", "nobody"]
    ),
    "plugins": st.sampled_from(["gone", "/dev/null", "m.yaml"]),  # what is imported is executed
}


#: Fields whose values are imported, and so executed: no odd ones are tried.
IMPORTED = ("class_path", "plugins")


def values(annotation: object) -> st.SearchStrategy[Any]:
    """Return what a field of this type may be, and what it may not be."""
    if annotation in (None, NoneType):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation in (int, float):
        return numbers
    if annotation is Process:  # stands for an edge in Python only
        return odd_text
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return fields_of(annotation)
    inner = [values(each) for each in get_args(annotation) if not isinstance(each, str)]
    literals = [st.just(each) for each in get_args(annotation) if isinstance(each, str)]
    several = st.one_of(*inner, *literals) if inner or literals else odd_text
    return several | st.lists(several, max_size=3) | st.dictionaries(odd_text, several, max_size=3)


def fields_of(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Return mappings that are nearly such a model: with keys of it, and a few of nobody's."""
    known: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in model.model_fields.items():
        likely = SMALL.get(name, values(field.annotation))
        # What is meant is more likely than what is not, or nothing but the first error is tried.
        known[field.alias or name] = st.one_of(*[likely] * 4, odd_text, junk)
        known[OTHER_SPELLINGS.get(name, name)] = known[field.alias or name]
        if name in IMPORTED:
            known[field.alias or name] = SMALL[name]
    unknown = st.dictionaries(
        odd_text | st.text(string.ascii_letters, max_size=8), junk, max_size=1
    )
    chosen = st.lists(st.sampled_from(sorted(known)), max_size=5, unique=True).flatmap(
        lambda keys: st.fixed_dictionaries({key: known[key] for key in keys})
    )
    return st.tuples(chosen, unknown | st.just({})).map(lambda both: {**both[1], **both[0]})


good_process = st.fixed_dictionaries({"name": SMALL["name"], "path": st.just("sh")})
entries = st.tuples(good_process | st.just({}), fields_of(Process)).map(
    lambda both: {**both[0], **both[1]}
)
manifests = st.tuples(
    fields_of(Manifest),
    st.one_of(*[st.lists(entries | good_process, max_size=4)] * 9, junk),
).map(lambda both: {**both[0], "processes": both[1]})


def in_toml(value: object) -> str:
    """Return a value of TOML; what TOML has no word for is text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(in_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(k)} = {in_toml(v)}' for k, v in value.items())}}}"
    return json.dumps(str(value)).replace("\x7f", "\\u007f")


def as_toml(manifest: Mapping[str, object]) -> str:
    return "".join(f"{json.dumps(key)} = {in_toml(value)}\n" for key, value in manifest.items())


def as_yaml(manifest: object) -> str:
    return str(yaml.safe_dump(manifest, allow_unicode=True))


WRITERS: Mapping[str, Callable[[Any], str]] = {
    "m.yaml": as_yaml,
    "m.json": lambda manifest: json.dumps(manifest, indent=1),
    "m.toml": as_toml,
}
FORMATS = st.sampled_from(sorted(WRITERS))


@given(manifests, FORMATS)
@settings(PROPERTY, max_examples=100)
def test_what_is_nearly_a_manifest_is_one_or_a_list_of_problems(
    judge: Judge, manifest: dict[str, Any], name: str
) -> None:
    judge(WRITERS[name](manifest), name)


@given(st.lists(good_process, min_size=1, max_size=3, unique_by=lambda p: p["name"]), FORMATS)
@PROPERTY
def test_what_is_a_manifest_in_one_format_is_the_same_in_the_others(
    judge: Judge, processes: list[dict[str, Any]], name: str
) -> None:
    loaded = judge(WRITERS[name]({"processes": processes}), name)
    assert loaded is not None
    assert [process.name for process in loaded.processes] == [p["name"] for p in processes]


@given(st.data())
@PROPERTY
def test_a_manifest_that_is_fine_can_be_dumped_and_validated_again(
    judge: Judge, data: st.DataObject
) -> None:
    entry = data.draw(good_process)
    entry |= data.draw(fields_of(Process).filter(lambda fields: "replica_of" not in fields))
    entry |= {"name": "api"}
    loaded = judge(json.dumps({"processes": [entry]}), "m.json")
    if loaded is not None:
        dump = loaded.model_dump()
        assert Manifest.model_validate(dump).model_dump() == dump


# --- anything else --------------------------------------------------------------------------------


@given(st.text(max_size=80) | st.text("-:[]{}&*!|>'\"%@,#<= \n\tanme=.~$", max_size=80), FORMATS)
@PROPERTY
def test_any_text_is_a_list_of_problems(judge: Judge, text: str, name: str) -> None:
    assert judge(text, name) is None


@given(st.binary(max_size=80), FORMATS)
@PROPERTY
def test_any_bytes_are_a_list_of_problems(judge: Judge, content: bytes, name: str) -> None:
    assert judge(content, name) is None


EXAMPLES = [path.read_text() for path in sorted((ROOT / "examples").glob("*/manifest.yaml"))]
# They lie elsewhere, and here no file of theirs is.
SOUND = [re.sub(r"(?m)^(env_file|plugins): .*$", "", text) for text in EXAMPLES]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return one of our examples with a few lines and characters deleted, doubled or replaced."""
    text = draw(st.sampled_from(SOUND))
    for _ in range(draw(st.integers(1, 4))):
        by_line = draw(st.booleans())
        parts = text.splitlines(keepends=True) if by_line else list(text)
        if not parts:
            break
        first = draw(st.integers(0, len(parts) - 1))
        last = min(len(parts), first + draw(st.integers(1, 3)))
        other = draw(st.sampled_from(parts) | odd_text)
        parts[first:last] = draw(st.sampled_from([[], parts[first:last] * 2, [other]]))
        text = "".join(parts)
    return text


@given(mutated())
@settings(PROPERTY, max_examples=150)
def test_a_manifest_with_a_slip_in_it_is_one_or_a_list_of_problems(judge: Judge, text: str) -> None:
    judge(text)


# --- work -----------------------------------------------------------------------------------------


def listed(lines: Callable[[int], str], number: int) -> str:
    return "processes:\n" + "".join(f"- {{{lines(n)}}}\n" for n in range(number))


def one(fields: str) -> str:
    return f"processes:\n- {{name: a, path: sh, {fields}}}\n"


def flow(item: Callable[[int], str], number: int) -> str:
    return ", ".join(map(item, range(number)))


#: Manifests that are the longer the larger their number is; at 1 each has a few kilobytes.
LONG: Mapping[str, Callable[[int], str]] = {
    "processes": lambda n: listed(lambda i: f"name: a{i}, path: sh", 60 * n),
    "missing programs": lambda n: listed(lambda i: f"name: a{i}, path: x{i}", 60 * n),
    "a chain": lambda n: listed(
        lambda i: f"name: a{i}, path: sh, dependencies: [{f'a{i - 1}' if i else ''}]", 60 * n
    ),
    "a circle": lambda n: listed(
        lambda i: f"name: a{i}, path: sh, dependencies: [a{(i + 1) % (60 * n)}]", 60 * n
    ),
    "dependencies": lambda n: one(f"dependencies: [{flow(lambda i: f'b{i}', 1_000 * n)}]"),
    "one dependency": lambda n: one(f"dependencies: [{flow(lambda i: 'a', 2_000 * n)}]"),
    "unknown keys": lambda n: one(flow(lambda i: f"b{i}: 1", 1_000 * n)),
    "unknown hooks": lambda n: one(f"lifecycle_hooks: [{flow(lambda i: f'h{i}', 2_000 * n)}]"),
    "unknown limits": lambda n: one(f"rlimits: {{{flow(lambda i: f'l{i}: 1', 1_000 * n)}}}"),
    "unknown users": lambda n: listed(lambda i: f"name: a{i}, path: sh, user: u{i}", 60 * n),
    "wrong arguments": lambda n: one(f"args: [{flow(lambda i: '1', 2_000 * n)}]"),
    "wrong CPUs": lambda n: one(f"affinity: [{flow(lambda i: str(100 + i), 2_000 * n)}]"),
    "unset variables": lambda n: one(f"args: [{flow(lambda i: f'${{X{i}}}', 2_000 * n)}]"),
    "unset variables in one text": lambda n: one(
        "args: ['" + "".join(f"${{X{i}}}" for i in range(2_000 * n)) + "']"
    ),
    "openings": lambda n: one("args: ['" + "${" * 5_000 * n + "']"),
    "defaults": lambda n: one("args: ['" + "${A:-x" * 3_000 * n + "']"),
    "a long name": lambda n: one(f"name2: {'a' * 20_000 * n}"),
    "a long name in many lines": lambda n: (
        f"processes:\n- {{name: {'a' * 20_000 * n}, {flow(lambda i: f'k{i}: 1', 200 * n)}}}\n"
    ),
    "a long path": lambda n: one(f"log: {{file: {'a/' * 10_000 * n}}}"),
    "logs in one file": lambda n: listed(
        lambda i: f"name: a{i}, path: sh, log: {{file: x}}", 60 * n
    ),
    "deep logs": lambda n: one(f"replicas: {30 * n}, log: {{file: '${{REPLICA}}/{'a/' * 98}x'}}"),
    "wildcards": lambda n: listed(lambda i: f"name: a{i}, path: '/usr/*/**/x{i}*'", 60 * n),
    "long wildcards": lambda n: one(f"replicas: {20 * n}").replace(
        "sh", "'/${REPLICA}" + "*a" * 99 + "'"
    ),
    "repeated wildcards": lambda n: one(f"path2: {n}").replace("sh", "'/" + "**/" * 20 * n + "x'"),
    "replicas of long texts": lambda n: one(
        f"replicas: 60, args: ['${{REPLICA}}{'x' * 2_000 * n}']"
    ),
    "waiting for a group": lambda n: (
        one("replicas: 200")
        + f"- {{name: b, path: sh, dependencies: [{flow(lambda i: 'a', 500 * n)}]}}\n"
    ),
    "aliases": lambda n: (
        f"x-a: &a {'x' * 3_000}\n" + one(f"args: [{flow(lambda i: '*a', 500 * n)}]")
    ),
    "merges": lambda n: (
        f"x-a: &a {{{flow(lambda i: f'k{i}: 1', 100)}}}\n" + listed(lambda i: "<<: *a", 12 * n)
    ),
}


def work(path: Path, text: str) -> int:
    """Return how many calls a check of *text* has made, and characters it has said."""
    path.write_text(text)
    re.purge()  # what was compiled for the last one is compiled for this one as well
    calls = said = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        load_manifest(path, check=check_plugins)
    except ManifestError as error:
        said = sum(map(len, error.lines))
    finally:
        sys.setprofile(None)
    return calls + said


@pytest.mark.slow
@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_work_grows_with_the_length_of_a_manifest(
    tmp_path: Path, make: Callable[[int], str]
) -> None:
    path = tmp_path / "m.yaml"
    work(path, make(1))  # what is done once only has been done then
    assert work(path, make(4)) < 5 * work(path, make(1))


# --- what makes much of little --------------------------------------------------------------------

GROUPS = "".join(
    f"- {{name: g{n}, path: sh, replicas: 100, dependencies: [{flow(lambda i: f'g{i}', n)}]}}\n"
    for n in range(10)
)
ANAGRAMS = ["".join("ab"[(i * k + k // 7) % 3 % 2] for i in range(190)) for k in range(1, 400)]
BOMBS: Mapping[str, tuple[str, str]] = {
    "replicas that wait for replicas": (
        f"processes:\n{GROUPS}",
        "there are more than 50000 of them, replicas counted",
    ),
    "long texts behind aliases": (
        f"x-a: &a {'x' * 100_000}\n" + one(f"args: [{flow(lambda i: '*a', 40_000)}]"),
        "has aliases for more than 10 MB of text",
    ),
    "long texts of replicas": (
        one(f"replicas: 1000, args: ['{'x' * 100_000}']"),
        "or too large ones",
    ),
    "folders of a PATH": (
        "x-p: &p {PATH: '"
        + ":".join(f"/{n:x}" for n in range(1_000))
        + "'}\n"
        + listed(lambda i: f"name: a{i}, path: x{i}, env: *p", 900),
        "its PATH leads through too many folders; name the program's own",
    ),
    "up and down": (
        one("").replace("path: sh", "path: '/*/*" + "/.." * 90 + "/*/*/*/*/*/x*'"),
        "leads to too many files; name more of its folders",
    ),
    "names of the same letters": (
        listed(lambda i: f"name: {ANAGRAMS[i]}x{i}, path: sh, dependencies: [{ANAGRAMS[-i]}]", 390),
        "there is no process",
    ),
}


@pytest.mark.parametrize(("text", "words"), BOMBS.values(), ids=BOMBS)
def test_what_would_make_much_of_little_is_refused(tmp_path: Path, text: str, words: str) -> None:
    # Were it not, the run would end by its own limit of a test's time.
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError, match=re.escape(words)):
        load_manifest(path, check=check_plugins)


def test_of_very_many_problems_a_thousand_are_told(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(one(flow(lambda i: f"k{i}: 1", 5_000)))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert len(caught.value.lines) == MOST_LINES
    assert caught.value.lines[0] == f"{path}:1: has more problems than these 1000"


def test_what_all_replicas_have_wrong_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "processes:\n"
        "- {name: a, path: sh, replicas: 600, timeout: -1, nice: 50}\n"
        "- {name: b, path: no-such-program}\n"
    )
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert [line.split(": ")[1] for line in caught.value.lines] == [
        "processes.a.nice",
        "processes.a.timeout",
        "processes.b.path",
    ]
