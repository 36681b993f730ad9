"""Secrets that a manifest refers to: looked up late, told nowhere."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import Field, SecretStr, field_validator

from runtime import Application, ProcessPilot, Service, ServiceConfiguration, ServiceManager
from runtime._interpolation import EnvFileError, interpolate, read_env_file
from runtime._problems import Location, Problem
from runtime._secrets import (
    Resolved,
    SecretError,
    Secrets,
    SecretSource,
    escape,
    has_secrets,
    resolve_secrets,
)
from runtime.manifest import Manifest, ManifestError, load_manifest
from runtime.process import ProcessManifest
from runtime.process.host import Host
from runtime.process.output import Line, Output
from runtime.process.readiness._candidate import Candidate
from runtime.process.readiness.exec import ExecParams, probe_exec
from runtime.process.spawn import Command
from runtime.service import ConfigurationError, ServiceState
from runtime.service._late_configuration import LateConfiguration
from runtime.supervision._exceptions import UnitFailedError
from runtime.supervision.graph import Stage

LIMIT_SEC = 60.0
VALUE = "s3same-öpen"
ENV: Location = ("processes", 0, "env", "A")
CONFIGURATION: Location = ("services", 0, "configuration", "deep", 0)


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOP_SECRET", VALUE)
    monkeypatch.setenv("SHORT_SECRET", "abc")
    monkeypatch.setenv("FOLDER", "keys")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("NEVER_SET", "ONLY_IN_FILE"):
        monkeypatch.delenv(name, raising=False)


def source(folder: Path, **variables: str) -> SecretSource:
    return SecretSource(folder, variables)


def say(resolved: Resolved[Any]) -> list[str]:
    return [what for _, what in (*resolved.problems, *resolved.missing)]


# --- looked up ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"hunter2", "hunter2"),
        (b" two\nlines \n\n", " two\nlines \n"),
        (b"", ""),
        ("gr\u00fc\u00df".encode(), "gr\u00fc\u00df"),
        (b"${secret://env/SHOP_SECRET} $${secret:", "${secret://env/SHOP_SECRET} $${secret:"),
    ],
)
def test_a_file_is_the_value_without_the_end_of_its_line(
    content: bytes, value: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    for path in ("key", tmp_path / "key"):
        found = resolve_secrets(f"<${{secret://file/{path}}}>", source(tmp_path))
        assert (found.data, found.values, say(found)) == (f"<{value}>", (value,), [])


def test_references_are_found_at_any_depth_and_several_in_one_value(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    data = {
        "a": ["${secret://env/SHOP_SECRET}:${secret://file/key}", 1, None, {"b": "$${secret:x}"}],
        "${secret://env/NEVER_SET}": True,
    }
    found = resolve_secrets(data, source(tmp_path))
    assert found.data == {
        "a": [f"{VALUE}:k", 1, None, {"b": "${secret:x}"}],
        "${secret://env/NEVER_SET}": True,
    }
    assert found.values == (VALUE, "k")
    assert VALUE not in repr(found)
    assert has_secrets(data)
    assert not has_secrets({"a": [1, "${x}"]})


def test_our_environment_wins_over_the_file_of_variables(tmp_path: Path) -> None:
    variables = {"SHOP_SECRET": "other", "ONLY_IN_FILE": "filed"}
    text = "${secret://env/SHOP_SECRET} ${secret://env/ONLY_IN_FILE}"
    made = source(tmp_path, **variables)
    assert resolve_secrets(text, made).data == f"{VALUE} filed"
    assert "filed" not in repr(made)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def huge(path: Path) -> None:
    path.write_text("x" * (64 * 1024 + 1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (fifo, "is no regular file"),
        (Path.mkdir, "is no regular file"),
        (huge, "is larger than 64 KB"),
        (lambda path: path.write_bytes(b"pw\xff\xfe"), "is no text in UTF-8"),
        (lambda path: path.write_bytes(b"pw\0"), "is no text in UTF-8"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda _: None, "is not there: no such file"),
    ],
)
def test_what_cannot_be_read_is_told_without_its_content(
    make: Any, words: str, tmp_path: Path
) -> None:
    make(tmp_path / "key")
    found = resolve_secrets("a${secret://file/key}", source(tmp_path), ("x",))
    (problem,) = (*found.problems, *found.missing)
    assert problem == Problem(("x",), f"the secret {tmp_path}/key {words}")
    assert found.data == "a${secret://file/key}"
    assert found.values == ()


def test_who_forgets_a_slash_of_an_absolute_path_is_told(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("x")
    (words,) = say(resolve_secrets(f"${{secret://file/{str(key)[1:]}}}", source(tmp_path)))
    assert words.endswith(f"no such file; for {key} write ${{secret://file/{key}}}")


@pytest.mark.parametrize(
    "text",
    [
        "${secret://vault/x}",
        "${secret://file/}",
        "${secret://env/1}",
        "${secret://env/A:-b}",
        "${secret:}",
        "${secret:file/x}",
        "${secret://env/A",
        f"${{secret://{'x' * 100}}}",
    ],
)
def test_what_is_no_reference_is_told(text: str, tmp_path: Path) -> None:
    (words,) = say(resolve_secrets(text, source(tmp_path)))
    assert "is no secret; write ${secret://file/PATH} or ${secret://env/NAME}" in words
    assert len(words) < 140


def test_the_error_carries_its_facts() -> None:
    error = SecretError("api", ["m.yaml:3: a: b", "m.yaml:4: c: d"])
    assert str(error) == "m.yaml:3: a: b; m.yaml:4: c: d"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.name, again.problems) == ("api", error.problems)


# --- left for later -------------------------------------------------------------------------------


def left(text: str, at: Location, **variables: str) -> tuple[object, list[str]]:
    problems: list[Problem] = []
    found = interpolate(text, variables, problems, at)
    assert all(where == at for where, _ in problems)
    return found, [what for _, what in problems]


@pytest.mark.parametrize("at", [ENV, CONFIGURATION])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("${secret://env/X}", "${secret://env/X}"),
        ("a ${secret://file/b c} ${X} $${X}", "a ${secret://file/b c} x ${X}"),
        ("${secret://file/${X}/${NONE:-y}}", "${secret://file/x/y}"),
        ("${secret://file/k-${REPLICA}}", "${secret://file/k-${REPLICA}}"),
        ("$${secret://env/X}", "$${secret://env/X}"),
        ("$$${secret://env/X}", "$$${secret://env/X}"),
        ("${TRICKY}", "$${secret://env/X}"),
        ("${DOLLAR} ${secret://env/X}", "a$ ${secret://env/X}"),
    ],
)
def test_a_reference_stays_as_it_is_written(text: str, found: str, at: Location) -> None:
    variables = {"X": "x", "TRICKY": "${secret://env/X}", "DOLLAR": "a$", "REPLICA": "${REPLICA}"}
    assert left(text, at, **variables) == (found, [])


def test_what_is_escaped_is_what_was_meant(tmp_path: Path) -> None:
    for text in ("$${secret://env/X}", "$$${secret://env/X} $${x}"):
        plain, problems = left(text, ("version",))
        late, _ = left(text, ENV)
        assert resolve_secrets(late, source(tmp_path)).data == plain
        assert problems == []
    assert resolve_secrets(escape("a${secret:b"), source(tmp_path)).data == "a${secret:b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${secret://vault/x}", "'${secret://vault/x}' is no secret"),
        ("${secret://env/${X}-}", "'${secret://env/x-}' is no secret"),
        ("${secret://env/A", "'${secret://env/A' is no secret"),
        ("${secret://file/$${X}}", "'${secret://file/$${X}' is no secret"),
        ("${secret://file/{X}}", "'${secret://file/{X}' is no secret"),
        ("${secret://file/${BRACE}}", "'${secret://file/}b}' is no secret"),
        ("${secret://file/${NONE}}", "${NONE} is not set; set it"),
        ("${DOLLAR}${secret://env/X}", "a secret may not come behind a variable that ends in $"),
    ],
)
def test_what_is_wrong_with_it_is_told_once(text: str, words: str) -> None:
    _, (problem,) = left(text, ENV, X="x", DOLLAR="a$", BRACE="}b")
    assert problem.startswith(words)


ARGUMENT = "everybody on this host can read the arguments"
ELSEWHERE = "only in the `env` of a process or in the `configuration` of a service"


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (("processes", 0, "args", 1), ARGUMENT),
        (("processes", 0, "command"), ARGUMENT),
        (("processes", 0, "path"), ARGUMENT),
        (("processes", 0, "stop_command", 0), ARGUMENT),
        (("processes", 0, "ready_params", "command", 2), ARGUMENT),
        (("processes", 0, "ready_params", "headers", "Authorization"), ELSEWHERE),
        (("processes", 0, "log", "file"), ELSEWHERE),
        (("processes", 0, "env", "PATH"), "PATH may be no secret: it is needed before"),
        (("processes", 0, "env", "LC_CTYPE"), "LC_CTYPE may be no secret"),
        (("services", 0, "class"), ELSEWHERE),
        (("http",), ELSEWHERE),
        (("control_params", "args"), ELSEWHERE),
        ((), ELSEWHERE),
    ],
)
def test_it_may_stand_where_only_the_program_sees_it(at: Location, words: str) -> None:
    found, (problem,) = left("${secret://env/SHOP_SECRET}", at)
    assert words in problem
    assert found == "${secret://env/SHOP_SECRET}"


def test_a_file_of_variables_has_none(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A='${secret://env/SHOP_SECRET}'\n")
    with pytest.raises(EnvFileError, match="a secret may not be here"):
        read_env_file(tmp_path / ".env")


# --- hidden ---------------------------------------------------------------------------------------


def hiding(*values: str) -> Secrets:
    secrets = Secrets()
    secrets.add(values)
    return secrets


@pytest.mark.parametrize(
    ("values", "text", "shown"),
    [
        ([VALUE], f"a{VALUE}b{VALUE}", "a***b***"),
        (["abcde"], "abcde", "abcde"),  # too short to be looked for
        (["sesame", "sesame-and-more"], "sesame-and-more sesame", "*** ***"),
        (["first line\n  second line\nx"], "second line: first line x", "***: *** x"),
        (["p@ss/wörd"], "u:p%40ss%2Fw%C3%B6rd@h u:p%40ss/w%C3%B6rd@h", "u:***@h u:***@h"),
        (['quo"ted\t'], json.dumps('quo"ted') + repr('it: quo"ted'), "\"***\"'it: ***'"),
        ([VALUE], "nothing", "nothing"),
        ([""], "nothing", "nothing"),
        ([], "nothing", "nothing"),
    ],
)
def test_a_text_has_no_value_in_it(values: list[str], text: str, shown: str) -> None:
    secrets = hiding(*values)
    assert secrets.mask(text) == shown
    assert list(secrets.mask_lines(["", text])) == ["", shown]
    assert bool(secrets) == any(values)
    assert not any(value and value in repr(secrets) for value in values)


def test_lines_without_a_value_are_handed_back_as_they_are() -> None:
    lines = ["a", "b"]
    assert hiding(VALUE).mask_lines(lines) is lines


def test_data_have_no_value_in_them_and_short_ones_only_as_a_part() -> None:
    secrets = hiding(VALUE, "abc", "5432")
    data = {"a": [VALUE, f"x{VALUE}", "abc", "abcd"], "b": (5432, 1, True, None), "abc": 2.5}
    shown = {"a": ["***", "x***", "***", "abcd"], "b": ["***", 1, True, None], "abc": 2.5}
    assert secrets.mask_data(data) == shown


def test_old_values_give_way_to_new_ones() -> None:
    secrets = hiding(*(f"value-{n:06}" for n in range(1_500)))
    secrets.add(["value-000600"])
    assert secrets.mask("value-000000 value-001499") == "value-000000 ***"
    secrets.add(f"other-{n:06}" for n in range(999))
    assert secrets.mask("value-001499 other-000000") == "value-001499 ***"


def test_output_has_them_in_no_line_and_nothing_is_done_without_any() -> None:
    heard: list[Line] = []
    output = Output(hiding(VALUE))
    output.listeners["test"] = heard.extend
    lines = [Line("stdout", f"key={VALUE}", 1.0), Line("stderr", "fine", 2.0)]
    output.add(lines)
    assert [line.text for line in heard] == ["key=***", "fine"]
    assert [entry.item for entry in output.lines.tail()] == heard
    assert heard[1] == lines[1]
    plain = Output()
    plain.add(lines)
    assert plain.lines.tail()[0].item is lines[0]


def test_a_command_does_not_show_its_environment() -> None:
    command = Command(name="p", argv=["x"], working_directory=None, env={"KEY": VALUE})
    assert VALUE not in repr(command)


# --- processes ------------------------------------------------------------------------------------


def script(code: str, name: str = "p", **fields: Any) -> dict[str, Any]:
    made = {"name": name, "path": "/bin/sh", "args": ["-c", code], "working_directory": "."}
    return {**made, **fields}


def lines_of(pilot: ProcessPilot, name: str = "p") -> list[str]:
    process = pilot.get_process_by_name(name)
    assert process is not None
    return [entry.item.text for entry in process.output.lines.tail()]


def told(supervisor: Any) -> str:
    return "\n".join(f"{e.item.unit}: {e.item.reason}" for e in supervisor.events.tail())


def read(path: str) -> bytes:
    return Path(path).read_bytes()


KEY = {"KEY": "${secret://file/keys/key}", "MORE": "<${secret://env/SHORT_SECRET}>"}
#: Writes its environment to a file, and prints it.
SPILL = 'printf "%s %s" "$KEY" "$MORE" >seen; echo "key: $KEY"; echo "key: $KEY" >&2'


async def test_a_process_gets_them_and_nobody_is_told(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/key").write_text(f"{VALUE}\n")
    echoed: list[str] = []

    def echo(name: str, lines: Any) -> None:
        echoed.extend(line.text for line in lines)

    definition = script(
        f"{SPILL}; exec sleep 1000",
        env=KEY,
        log={"file": "log", "timestamps": False},
        ready_strategy="exec",
        # Its command fails at first, and says the key; then it has been heard.
        ready_params={"command": ["/bin/sh", "-c", 'test -e ok || { echo "$KEY"; >ok; exit 3; }']},
        stop_command=["/bin/sh", "-c", 'echo "stop: $KEY"; exit 7'],
    )
    manifest = ProcessManifest.model_validate(
        {"base_directory": str(tmp_path), "processes": [definition]}
    )
    with trio.fail_after(LIMIT_SEC):
        async with ProcessPilot(manifest, host=Host(echo=echo)) as pilot:
            pid = manifest.processes[0].pid
            assert VALUE.encode() not in read(f"/proc/{pid}/cmdline")
            assert f"KEY={VALUE}".encode() in read(f"/proc/{pid}/environ")
            await manifest.processes[0].output.lines.wait_next(1)  # it has printed both
    assert (tmp_path / "seen").read_text() == f"{VALUE} <abc>"
    assert sorted(lines_of(pilot)) == ["key: ***", "key: ***", "stop: ***"]
    assert sorted(echoed) == sorted(lines_of(pilot))
    assert VALUE not in (tmp_path / "log").read_text()
    assert "exited with 7: stop: ***" in told(pilot.supervisor)
    for text in (told(pilot.supervisor), repr(manifest), repr(pilot.supervisor.statuses())):
        assert VALUE not in text
    assert "${secret://file/keys/key}" in manifest.model_dump_json()


async def test_a_check_that_says_one_says_stars() -> None:
    params = ExecParams(command=["/bin/sh", "-c", 'echo "no: $SHOP_SECRET" >&2; exit 3'])
    candidate = Candidate()
    with trio.fail_after(LIMIT_SEC):
        assert not await probe_exec(params, Host(secrets=hiding(VALUE)), candidate)
    assert candidate.obstacle == "its command exited with 3: no: ***"


async def test_each_start_looks_anew_and_both_values_are_hidden(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first-value")
    manifest = ProcessManifest.model_validate(
        {
            "base_directory": str(tmp_path),
            "processes": [
                script(
                    'echo "$KEY first-value"; exec sleep 1000',
                    env={"KEY": "${secret://file/key}"},
                    ready_strategy="log",
                    ready_params={"pattern": "."},
                )
            ],
        }
    )
    with trio.fail_after(LIMIT_SEC):
        async with ProcessPilot(manifest) as pilot:
            key.write_text("second-value")
            await pilot.restart_processes("p")
    assert lines_of(pilot) == ["*** ***", "*** ***"]


def write(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


LATE = """\
http: off
processes:
- name: maker
  path: /bin/sh
  args: [-c, "{code}"]
  working_directory: .
  shutdown_strategy: do_not_restart
- name: user
  path: /bin/sh
  args: [-c, 'test "$KEY" = made']
  env:
    KEY: "${{secret://file/made}}"
  shutdown_strategy: do_not_restart
  dependencies: [{{name: maker, condition: completed_successfully}}]
services:
- name: reader
  class: secret_services:KeyService
  configuration:
    port: 1
    deep: [{{key: "${{secret://file/made}}"}}]
  dependencies: [{{name: maker, condition: completed_successfully}}]
"""

SERVICES = """
from runtime import Service, ServiceConfiguration, ServiceManager


class KeyConfiguration(ServiceConfiguration):
    port: int
    deep: list[dict[str, str]]


class KeyManager(ServiceManager):
    async def start(self):
        pass

    async def stop(self):
        pass

    async def check_health(self):
        return True


class KeyService(Service):
    configuration_class = KeyConfiguration

    def create_manager(self):
        return KeyManager(self.logger)


class FailingManager(KeyManager):
    async def start(self):
        raise RuntimeError(f"no access with {self.key}")


class FailingService(KeyService):
    def create_manager(self):
        manager = FailingManager(self.logger)
        manager.key = self.config.deep[0]["key"]
        return manager
"""


@pytest.fixture
def service_module(tmp_path: Path) -> Any:
    (tmp_path / "secret_services.py").write_text(SERVICES)
    yield
    sys.modules.pop("secret_services", None)


@pytest.mark.usefixtures("service_module")
async def test_what_an_earlier_unit_makes_is_there_in_time(tmp_path: Path) -> None:
    manifest = load_manifest(write(tmp_path, LATE.format(code="echo made >made")))
    application = Application(manifest, keep=True)
    service = application.get_service("reader")
    assert service is not None
    assert service.status.is_configured
    assert service.status.state is ServiceState.CONFIGURED
    assert service.status.metadata == {"port": 1, "deep": [{"key": "***"}]}
    assert service.config is None
    assert service.is_enabled
    with trio.fail_after(LIMIT_SEC):
        async with application:
            await application.supervisor.wait_until("user", Stage.COMPLETED)
            config: Any = service.config
            assert config.deep == [{"key": "made"}]
            assert service.status.state is ServiceState.RUNNING
            assert service.status.metadata["deep"] == [{"key": "***"}]


@pytest.mark.usefixtures("service_module")
async def test_what_is_not_there_at_the_start_fails_its_unit_and_names_the_place(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, LATE.format(code="exit 0"))
    application = Application(load_manifest(path), keep=True)
    with trio.fail_after(LIMIT_SEC):
        async with application:
            for name, line, key in (
                ("user", 12, "processes.user.env.KEY"),
                ("reader", 20, "services.reader.configuration.deep.0.key"),
            ):
                await application.supervisor.wait_until(name, Stage.FAILED)
                status = application.supervisor.status(name)
                words = f"{path}:{line}: {key}: the secret {tmp_path}/made is not there: no such"
                assert status.reason.startswith(words)
                assert isinstance(status.error, SecretError)
            service = application.get_service("reader")
            assert service is not None
            assert service.status.error == status.reason
            with pytest.raises(SecretError):
                await service.start()
            (tmp_path / "made").write_text("later")
            await service.start()
            config: Any = service.config
            assert config.deep == [{"key": "later"}]
            manager = service.manager
            await service.restart()
            assert service.manager is manager  # as nothing has changed
            (tmp_path / "made").write_text("again")
            await service.restart()
            assert service.manager is not manager


# --- what is told when a manifest is checked ------------------------------------------------------


def judge(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    return [line.removeprefix(f"{path}:") for line in caught.value.lines]


@pytest.mark.usefixtures("service_module")
def test_all_that_can_be_known_is_told_when_a_manifest_is_checked(tmp_path: Path) -> None:
    lines = judge(
        tmp_path,
        """\
processes:
- {name: a, path: sh, env: {K: "${secret://file/gone}", L: "${secret://env/NEVER_SET}"}}
- {name: b, path: sh, dependencies: [a], env: {K: "${secret://file/later}", L: "${secret:x}"}}
- {name: c, path: sh, replicas: 2, env: {K: "${secret://file/k-${REPLICA}}"}}
- {name: d, path: sh, autostart: false, env: {K: "${secret://file/later}"}}
services:
- name: s
  class: secret_services:KeyService
  configuration: {port: none-of-it, deep: [{k: "${secret://file/gone}"}], more: 1}
- name: t
  class: secret_services:KeyService
  configuration: {port: "${secret://env/SHOP_SECRET}", deep: []}
- name: u
  class: secret_services:KeyService
  dependencies: [a]
  configuration: {port: "${secret://file/later}", deep: "${secret://env/NEVER_SET}"}
""",
    )
    gone, number = "is not there: no such file", "input should be a valid integer"
    unset = "the secret $NEVER_SET is not set; set it in the environment of the runtime, or in its"
    expected = [
        f"2: processes.a.env.K: the secret {tmp_path}/gone {gone}",
        f"2: processes.a.env.L: {unset}",
        "3: processes.b.env.L: '${secret:x}' is no secret; write",
        f"4: processes.c.env.K: the secret {tmp_path}/k-0 {gone}",
        f"4: processes.c.env.K: the secret {tmp_path}/k-1 {gone}",
        f"9: services.s.configuration.deep.0.k: the secret {tmp_path}/gone {gone}",
        "9: services.s.configuration.more: unknown key",
        f"9: services.s.configuration.port: {number}",
        f"12: services.t.configuration.port: {number}",
        f"16: services.u.configuration.deep: {unset}",
    ]
    assert len(lines) == len(expected), lines
    assert all(map(str.startswith, lines, expected)), lines
    assert VALUE not in str(lines)


def test_without_its_file_of_variables_nothing_is_told_of_these(tmp_path: Path) -> None:
    lines = judge(
        tmp_path,
        'env_file: gone.env\nprocesses:\n- {name: a, path: sh, env: {K: "${secret://env/NEVER_SET}"}}\n',
    )
    assert lines == [f"1: env_file: {tmp_path}/gone.env: there is no such file"]


def test_paths_may_have_variables_and_the_file_of_variables_counts(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/k-1").write_text("x")
    (tmp_path / "keys/k-0").write_text("x")
    (tmp_path / ".env").write_text("ONLY_IN_FILE=filed\n")
    manifest = load_manifest(
        write(
            tmp_path,
            """\
env_file: .env
processes:
- name: a
  path: sh
  replicas: 2
  env: {K: "${secret://file/${FOLDER}/k-${REPLICA}}", L: "${secret://env/ONLY_IN_FILE}"}
""",
        )
    )
    assert [p.env["K"] for p in manifest.processes] == [
        "${secret://file/keys/k-0}",
        "${secret://file/keys/k-1}",
    ]
    env = manifest.processes[0].env
    assert resolve_secrets(env, manifest.processes[0].secret_source).data["L"] == "filed"


# --- services -------------------------------------------------------------------------------------


class StoreConfiguration(ServiceConfiguration):
    url: str
    port: int = 0
    password: SecretStr = SecretStr("")
    deep: dict[str, Any] = Field(default={})

    @field_validator("url")
    @classmethod
    def _judge(cls, url: str) -> str:
        if "bad" in url:
            raise ValueError(f"{url} is bad")
        return url


class StoreManager(ServiceManager):
    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class StoreService(Service):
    configuration_class = StoreConfiguration

    def create_manager(self) -> StoreManager:
        return StoreManager(self.logger)


def late(data: Mapping[str, Any], folder: Path, secrets: Secrets | None = None) -> Any:
    return LateConfiguration(
        "store", data, source(folder), secrets or Secrets(), at=("services", "store")
    )


def store(data: Mapping[str, Any], folder: Path) -> StoreService:
    service = StoreService()
    service.configure_late(late(data, folder))
    return service


def test_a_service_has_them_and_shows_what_its_manifest_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PORT", "54321")
    service = store(
        {
            "url": "db://u:${secret://env/SHOP_SECRET}@h/${secret://env/SHORT_SECRET}",
            "port": "${secret://env/DB_PORT}",
            "password": "${secret://env/SHOP_SECRET}",
            "deep": {"a": [{"b": "${secret://env/SHORT_SECRET}"}], "c": f"has {VALUE}", "d": 1},
        },
        tmp_path,
    )
    config: Any = service.config
    assert config.url == f"db://u:{VALUE}@h/abc"
    assert config.port == 54321
    assert config.password.get_secret_value() == VALUE
    shown = {
        "url": "db://u:***@h/***",
        "port": "***",
        "password": "***",
        "deep": {"a": [{"b": "***"}], "c": "has ***", "d": 1},
    }
    metadata = service.status.metadata
    assert {key: metadata[key] for key in shown} == shown
    for text in (repr(config), str(config), repr(service.status), repr(vars(config).keys())):
        assert VALUE not in text
    assert "url='db://u:***@h/abc'" in repr(config)  # too short to be looked for within a text
    assert "port='***'" in repr(config) or "port=***" in repr(config)


def test_what_it_says_of_itself_is_hidden_as_well(tmp_path: Path) -> None:
    service = store({"url": "${secret://env/SHOP_SECRET}"}, tmp_path)
    service.set_metadata({"seen": [f"at {VALUE}"]})
    assert service.status.metadata == {"seen": ["at ***"]}
    service.status.metadata["more"] = VALUE
    assert service.status.metadata == {"seen": ["at ***"], "more": "***"}
    service.set_error(f"cannot log in with {VALUE}")
    assert service.status.error == "cannot log in with ***"


def test_another_configuration_takes_its_place(tmp_path: Path) -> None:
    service = store({"url": "${secret://env/NEVER_SET}"}, tmp_path)
    assert service.lacks_secrets
    with pytest.raises(ConfigurationError, match="no manager"):
        _ = service.manager
    service.configure({"url": "${secret://env/SHOP_SECRET}"})
    assert not service.lacks_secrets
    config: Any = service.config
    assert config.url == "${secret://env/SHOP_SECRET}"  # only a manifest refers to secrets


def test_a_value_that_does_not_fit_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_SECRET", "bad-value")
    with pytest.raises(ConfigurationError, match=r"url: Value error, \*\*\* is bad") as caught:
        store({"url": "${secret://env/SHOP_SECRET}"}, tmp_path)
    error: BaseException | None = caught.value
    assert error is not None
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize(("enabled", "is_so"), [("no", False), (True, True), (None, True)])
def test_whether_it_is_enabled_is_known_before(
    enabled: object, is_so: bool, tmp_path: Path
) -> None:
    data = {"url": "${secret://env/NEVER_SET}"} | ({} if enabled is None else {"enabled": enabled})
    assert store(data, tmp_path).is_enabled is is_so


@pytest.mark.usefixtures("service_module")
async def test_a_failure_is_told_without_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = {
        "name": "store",
        "class": "secret_services:FailingService",
        "configuration": {"port": 1, "deep": [{"key": "${secret://env/SHOP_SECRET}"}]},
    }
    manifest = Manifest.model_validate({"base_directory": str(tmp_path), "services": [entry]})
    application = Application(manifest, keep=True)
    with trio.fail_after(LIMIT_SEC):
        async with application:
            await application.supervisor.wait_until("store", Stage.FAILED)
            status = application.supervisor.status("store")
    assert "no access with ***" in status.reason
    assert VALUE not in told(application.supervisor)
    assert VALUE not in application.status.model_dump_json()
    assert VALUE not in caplog.text


@pytest.mark.usefixtures("service_module")
async def test_a_new_value_that_does_not_fit_fails_the_start_and_the_next_may_fit(
    tmp_path: Path,
) -> None:
    (tmp_path / "port").write_text("1")
    entry = {
        "name": "store",
        "class": "secret_services:KeyService",
        "configuration": {"port": "${secret://file/port}", "deep": []},
        "health": {"interval_sec": 10},
    }
    manifest = Manifest.model_validate({"base_directory": str(tmp_path), "services": [entry]})
    application = Application(manifest, keep=True)
    service = application.get_service("store")
    assert service is not None
    with trio.fail_after(LIMIT_SEC):
        async with application:
            (tmp_path / "port").write_text("no-number")
            with pytest.raises(UnitFailedError, match="port: Input should be a valid integer"):
                await service.restart()
            (tmp_path / "port").write_text("2")
            await service.start()
            config: Any = service.config
            assert config.port == 2
