"""The schema is one, takes what the loader takes, and refuses what no loader would take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from runtime._documents import read_document
from runtime._groups import GroupSpec
from runtime._http_spec import HttpSpec
from runtime._schema import manifest_schema
from runtime._specs import HealthSpec
from runtime.cli._schema import schema
from runtime.manifest import OTHER_SPELLINGS, Manifest, ManifestError, load_manifest
from runtime.process import CeilingsSpec, Dependency, Process, RestartSpec
from runtime.process.readiness import STRATEGIES
from runtime.process.specs import ProcessHealthSpec
from runtime.service.specs import ServiceEntry

if TYPE_CHECKING:
    from tests.cli.conftest import Ask

ROOT = Path(__file__).parents[2]
SCHEMA = manifest_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
DEFINITIONS: dict[str, Any] = SCHEMA["$defs"]
MODELS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "manifest": (Manifest, SCHEMA),
    **{
        model.__name__: (model, DEFINITIONS[model.__name__])
        for model in (
            *(Process, ServiceEntry, RestartSpec, Dependency, GroupSpec, CeilingsSpec),
            *(HealthSpec, ProcessHealthSpec, HttpSpec),
            *(strategy.params for strategy in STRATEGIES.values()),
        )
    },
}


def complaints(manifest: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(manifest)]


def with_process(**fields: Any) -> dict[str, Any]:
    """Return a manifest with a process that says this, and two that it may depend on."""
    others = [
        {"name": "db", "path": "sh", "shutdown_strategy": "do_not_restart"},
        {"name": "cache", "path": "sh"},
    ]
    program = {} if "command" in fields or "path" in fields else {"path": "sh"}
    return {"processes": [{"name": "api", **program, **fields}, *others]}


def with_service(**fields: Any) -> dict[str, Any]:
    """Return a manifest with a service that says this, and a process that it may depend on."""
    service = {"name": "cache", "class": "runtime.service.plain:idle", **fields}
    db = {"name": "db", "path": "sh", "shutdown_strategy": "do_not_restart"}
    return {"services": [service], "processes": [db]}


def is_loaded(folder: Path, manifest: object, name: str = "m.json") -> bool:
    path = folder / name
    path.write_text(json.dumps(manifest))
    try:
        load_manifest(path)
    except ManifestError:
        return False
    return True


def properties() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every key that a manifest may have, with the object that it belongs to."""
    for owner, described in {"manifest": SCHEMA, **DEFINITIONS}.items():
        for key, value in described.get("properties", {}).items():
            yield owner, key, value


PROPERTIES = [pytest.param(key, value, id=f"{owner}.{key}") for owner, key, value in properties()]


# --- the schema itself ----------------------------------------------------------------------------


def test_it_is_a_schema_of_its_draft() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$id"].startswith("urn:")
    assert SCHEMA["title"]
    assert SCHEMA["description"]


@pytest.mark.parametrize("name", MODELS)
def test_it_has_every_field_of_the_models_and_no_other(name: str) -> None:
    model, described = MODELS[name]
    fields = {field.alias or key for key, field in model.model_fields.items()}
    if model is Process:
        fields = (fields | set(OTHER_SPELLINGS.values())) - {"replica_of"}  # the loader's own
    assert described["properties"].keys() == fields
    assert described["additionalProperties"] is False


@pytest.mark.parametrize(("key", "described"), PROPERTIES)
def test_every_field_is_described_and_a_duration_in_its_unit(
    key: str, described: Mapping[str, Any]
) -> None:
    words = described.get("description") or DEFINITIONS[reference(described)]["description"]
    assert re.fullmatch(r"[A-Z`].*\.", words)
    if re.search("_sec$|timeout$", key):
        assert "seconds" in words.lower()
    if described.get("default", ...) is None:
        assert re.search("unset|null|nothing here reads it|another spelling", words, re.IGNORECASE)


def reference(described: Mapping[str, Any]) -> str:
    return str(described["$ref"]).rpartition("/")[2]


@pytest.mark.parametrize(("key", "described"), PROPERTIES)
def test_every_field_has_examples_where_its_type_does_not_say_it_all(
    key: str, described: dict[str, Any]
) -> None:
    says_all = "enum" in json.dumps({**described, **resolve(described)}) or (
        described.get("default") is not None  # a default is an example
    )
    assert says_all or described.get("examples"), key
    here = Draft202012Validator({**described, "$defs": DEFINITIONS})
    for example in described.get("examples", ()):
        assert list(here.iter_errors(example)) == []


def resolve(described: Mapping[str, Any]) -> Mapping[str, Any]:
    return DEFINITIONS[reference(described)] if "$ref" in described else {}


# --- what it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    sorted({*(ROOT / "examples").rglob("*.yaml"), *(ROOT / "examples").rglob("manifest.*")}),
    ids=str,
)
def test_it_takes_the_examples(path: Path) -> None:
    assert complaints(read_document(path).data) == []


@pytest.mark.parametrize(
    "block", re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
)
def test_it_takes_what_the_readme_shows(block: str) -> None:
    assert complaints(yaml.safe_load(block)) == []


#: Parameters that will do, for each strategy.
PARAMS: dict[str, dict[str, Any]] = {
    "tcp": {"port": 5432},
    "http": {"url": "http://localhost:8000/healthz"},
    "exec": {"command": ["true"]},
    "file": {"path": "ready"},
    "pipe": {"path": "ready"},
    "log": {"pattern": "listening"},
}

GOOD: list[dict[str, Any]] = [
    *({"ready_strategy": name, "ready_params": params} for name, params in PARAMS.items()),
    {"ready_strategy": "tcp", "ready_params": {"unix": "api.sock"}},
    {"ready_strategy": "tcp", "ready_params": {"unix": "api.sock", "port": None, "host": None}},
    {"ready_strategy": "http", "ready_params": {"url": "http://a:${P:-1}/", "status": "${S:-200}"}},
    {"ready_strategy": "http", "ready_params": {"url": "http://a", "status": [200, "204"]}},
    {"ready_strategy": "http", "ready_params": {"url": "https://a", "verify": "no", "unix": "x"}},
    {
        "ready_strategy": "http",
        "ready_params": {"url": "http://[::1]", "body": "a", "status": None},
    },
    {"ready_strategy": "a-plugins", "ready_params": {"x": [1]}},
    {},
    {"args": ["-c", "exit"], "env": {"A": "b"}, "working_directory": "."},
    {"command": "exit 1"},
    {"command": "exit 1", "path": "/bin/sh", "args": []},
    {"path": "sh", "command": None},
    {"dependencies": ["db"]},
    {"dependencies": ["db", {"name": "cache"}]},
    {"dependencies": [{"name": "db", "condition": "completed_successfully"}]},
    {"dependencies": [{"name": "db", "condition": "${CONDITION:-started}"}]},
    {"affinity": [0]},
    {"processor_affinity": [0]},
    {"affinity": None},
    {"affinity": ["${CPU:-0}"]},
    {"timeout": None},
    {"timeout": 0},
    {"timeout": 2.5},
    {"timeout": "2.5"},
    {"timeout": "${TIMEOUT:-2.5}"},
    {"ready_timeout_sec": "1${ZEROS:-00}"},
    {"ready_strategy": "tcp", "ready_params": {"port": 5432}},
    {"ready_strategy": "tcp", "ready_params": {"port": "${PORT:-5432}", "host": "localhost"}},
    {"ready_strategy": "file", "ready_params": {"path": "ready"}},
    {"ready_strategy": "pipe", "ready_params": {"path": "ready"}},
    {"ready_strategy": "a-plugins"},
    {"shutdown_strategy": "shutdown_everything"},
    {"shutdown_strategy": "${STRATEGY:-restart}"},
    {"shutdown_strategy": None},
    {"restart": None},
    {"restart": {}},
    {"restart": {"when": "always", "delay_sec": 0, "factor": 1, "jitter": 1, "max_restarts": 0}},
    {"restart": {"when": "${WHEN:-never}", "max_restarts": "${MAX:-3}", "window_sec": 0.1}},
    {"restart": {"max_restarts": 3.0}},
    {"restart_dependents": True},
    {"restart_dependents": "yes"},
    {"restart_dependents": "${AGAIN:-off}"},
    {"autostart": False},
    {"autostart": "${START:-no}"},
    {"stop_signal": "int"},
    {"success_exit_codes": [0, 3, "SIGTERM", "term", "${CODE:-7}"]},
    {"max_run_sec": 0.5},
    {"max_run_sec": None},
    {"stop_command": ["sh", "-c", "kill $RUNTIME_PID"]},
    {"hook_failure": "ignore"},
    {"replicas": 2},
    {"replicas": "${REPLICAS:-2}", "args": ["${REPLICA}"]},
    {"replicas": None},
    {"lifecycle_hooks": ["a"], "stat_handlers": ["b"]},
    {"ceilings": None},
    {"ceilings": {"memory_mb": 500}},
    {"ceilings": {"cpu_percent": "${MOST:-180.5}", "for_sec": 0, "of": "process"}},
    {"ceilings": {"memory_mb": "1e3", "cpu_percent": None, "of": "${WHOSE:-family}"}},
]


@pytest.mark.parametrize("fields", GOOD, ids=json.dumps)
def test_it_takes_a_good_process_as_the_loader_does(tmp_path: Path, fields: dict[str, Any]) -> None:
    manifest = with_process(**fields)
    assert complaints(manifest) == []
    assert is_loaded(tmp_path, manifest)


@pytest.mark.parametrize(
    "settings",
    [
        {"$schema": "./manifest.schema.json"},
        {"base_directory": ".", "run_directory": "run", "control_server": "x"},
        {"base_directory": None, "run_directory": None, "control_server": None},
        {"stop_within_sec": 0.1, "kill_timeout": 0},
        {"stop_within_sec": "${STOP:-1e1}", "kill_timeout": "5"},
        {"env_file": None, "plugins": None},
        {"groups": []},
        {"groups": [{"name": "g", "strategy": "one_for_all", "members": ["db", "api"]}]},
        {"groups": [{"name": "g", "strategy": "${S:-rest_for_one}", "members": ["cache"]}]},
        {"stats_interval_sec": "${OFTEN:-0.5}"},
        {"stats_interval_sec": None},
    ],
    ids=json.dumps,
)
def test_it_takes_good_settings_as_the_loader_does(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    manifest = {**settings, **with_process()}
    assert complaints(manifest) == []
    assert is_loaded(tmp_path, manifest)
    if "$schema" in settings:
        assert "$schema" not in load_manifest(tmp_path / "m.json").model_dump(by_alias=True)


#: Values that one field or another may take.
VALUES: list[Any] = [
    *(None, -1, 0, 1, 1.0, 2.5, 700, "", "1", " 1 ", "-1", "2.5", "+1e1", ".5", "1_0", "0.0"),
    *(
        "yes",
        "Off",
        "TRUE",
        "t",
        "n",
        "x",
        "sh",
        "027",
        "unlimited",
        "root",
        "SIGTERM",
        "never",
        "ignore",
    ),
    *("${X:-1}", "${X:-0.5}", "${X:-yes}", "${X:-never}", "restart", "$${X}", "a/b", "ä"),
    *([], ["a"], ["db"], ["1"], [0], [0, 1], [{"name": "db"}], {}, {"a": "b"}, {"a": 1}),
    *({"path": "x"}, {"file": "x"}, {"nofile": 10}, {"nofile": "10"}, {"nofile": [1, "unlimited"]}),
    *({"when": "never"}, {"max_restarts": "1"}, {"memory_mb": 1}, {"for_sec": 1}),
]


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(DEFINITIONS["Process"]["properties"]))
def test_for_no_value_of_a_process_it_gives_a_false_alarm(tmp_path: Path, key: str) -> None:
    taken = 0
    for value in VALUES:
        manifest = with_process(**{key: value})
        if is_loaded(tmp_path, manifest):
            taken += 1
            assert complaints(manifest) == [], value
    assert taken > 0


GOOD_SERVICES: list[dict[str, Any]] = [
    {},
    {"configuration": None},
    {"configuration": {"enabled": True}},
    {"configuration": {"enabled": "${ENABLED:-no}"}},
    {"dependencies": ["db", {"name": "db", "condition": "completed"}]},
    {"restart": {"when": "always", "max_restarts": 3}},
    {"restart_dependents": True, "timeout": None, "enabled": False, "autostart": "no"},
]


@pytest.mark.parametrize("fields", GOOD_SERVICES, ids=json.dumps)
def test_it_takes_a_good_service_as_the_loader_does(tmp_path: Path, fields: dict[str, Any]) -> None:
    manifest = with_service(**fields)
    assert complaints(manifest) == []
    assert is_loaded(tmp_path, manifest)
    alone = {"services": [{**manifest["services"][0], "dependencies": []}]}
    assert complaints(alone) == []
    assert is_loaded(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(DEFINITIONS["ServiceEntry"]["properties"].keys()))
def test_for_no_value_of_a_service_it_gives_a_false_alarm(tmp_path: Path, key: str) -> None:
    taken = 0
    for value in [*VALUES, {"autostart": True}, "runtime.service.plain:idle"]:
        manifest = with_service(**{key: value})
        if is_loaded(tmp_path, manifest):
            taken += 1
            assert complaints(manifest) == [], value
    assert taken > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"class": None},
        {"class": ""},
        {"class": 5},
        {"class_path": "runtime.service.plain:idle"},
        {"name": "a/b"},
        {"configuration": []},
        {"configuration": "size"},
        {"dependencies": "db"},
        {"restart": "always"},
        {"timeout": -1},
        {"timeout": "soon"},
        {"enabled": "perhaps"},
        {"autostart": None},
        {"restart_dependents": 2},
        {"replicas": 2},
        {"path": "sh"},
    ],
    ids=json.dumps,
)
def test_it_refuses_a_bad_service_as_the_loader_does(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    manifest = with_service(**fields)
    assert complaints(manifest) != []
    assert not is_loaded(tmp_path, manifest)


@pytest.mark.parametrize("key", sorted(SCHEMA["properties"].keys() - {"processes"}))
def test_for_no_value_of_a_setting_it_gives_a_false_alarm(tmp_path: Path, key: str) -> None:
    taken = 0
    for value in VALUES:
        manifest = {**with_process(), key: value}
        if is_loaded(tmp_path, manifest):
            taken += 1
            assert complaints(manifest) == [], value
    assert taken > 0


@pytest.mark.parametrize("key", sorted(DEFINITIONS["RestartSpec"]["properties"]))
def test_for_no_value_of_a_restart_block_it_gives_a_false_alarm(tmp_path: Path, key: str) -> None:
    taken = 0
    for value in VALUES:
        manifest = with_process(restart={key: value})
        if is_loaded(tmp_path, manifest):
            taken += 1
            assert complaints(manifest) == [], value
    assert taken > 0


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"tiemout": 5},
        {"name": ""},
        {"name": "a/b"},
        {"name": 5},
        {"name": None},
        {"path": 5},
        {"path": ["sh"]},
        {"command": 5},
        {"command": ""},
        {"command": "exit", "path": "sh"},
        {"command": "exit", "args": ["x"]},
        {"args": "-v"},
        {"args": [1]},
        {"env": ["A=b"]},
        {"env": {"A": 1}},
        {"env": {"A": None}},
        {"timeout": -1},
        {"timeout": "soon"},
        {"timeout": [1]},
        {"ready_timeout_sec": None},
        {"ready_timeout_sec": "$PORT"},
        {"shutdown_strategy": "explode"},
        {"dependencies": "db"},
        {"dependencies": [5]},
        {"dependencies": [{}]},
        {"dependencies": [{"name": "db", "condition": "exists"}]},
        {"dependencies": [{"name": "db", "conditon": "ready"}]},
        {"affinity": 0},
        {"affinity": [0.5]},
        {"affinity": ["one"]},
        {"processor_affinity": ["one"]},
        {"ready_params": ["port"]},
        {"ready_strategy": 5},
        {"restart": "always"},
        {"restart": {"facto": 2}},
        {"restart": {"factor": 0.5}},
        {"restart": {"jitter": 2}},
        {"restart": {"max_restarts": -1}},
        {"restart": {"max_restarts": 1.5}},
        {"restart": {"max_restarts": "1.5"}},
        {"restart": {"window_sec": 0}},
        {"restart": {"when": "sometimes"}},
        {"restart_dependents": "perhaps"},
        {"restart_dependents": 2},
        {"restart_dependents": None},
        {"autostart": "perhaps"},
        {"autostart": None},
        {"stop_signal": 15},
        {"success_exit_codes": []},
        {"success_exit_codes": 0},
        {"max_run_sec": 0},
        {"stop_command": []},
        {"stop_command": "sh"},
        {"hook_failure": None},
        {"replicas": 0},
        {"replicas": 1001},
        {"replicas": "two"},
        *({"ready_strategy": name} for name in STRATEGIES if name != "notify"),
        *({"ready_strategy": name, "ready_params": {}} for name in STRATEGIES if name != "notify"),
        {"ready_strategy": "notify", "ready_params": {"path": "x"}},
        {"watchdog_sec": 0},
        {"health": {"strategy": "tcp", "params": {"port": 0}}},
        {"health": {"strategy": "file", "params": {}}},
        {"health": {"strategy": "file", "params": {"path": "x"}, "failures": 0}},
        {"health": {"strategy": "file", "params": {"path": "x"}, "interval_sec": 0}},
        {"health": {"strategy": "file", "params": {"path": "x"}, "retries": 3}},
        {"health": True},
        *(
            {"ready_strategy": name, "ready_params": {**params, **wrong}}
            for name, params in PARAMS.items()
            for wrong in ({"x": 1}, {key: [] for key in params})
        ),
        {"ready_strategy": "tcp", "ready_params": {"port": 0}},
        {"ready_strategy": "http", "ready_params": {"url": "http://a", "status": [99]}},
        {"ready_strategy": "http", "ready_params": {"url": "http://a", "headers": {"a": 1}}},
        {"ready_strategy": "exec", "ready_params": {"command": "true"}},
        {"ready_strategy": "log", "ready_params": {"pattern": ""}},
    ],
    ids=json.dumps,
)
def test_it_refuses_a_bad_process_as_the_loader_does(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    manifest = with_process(**fields)
    assert complaints(manifest) != []
    assert not is_loaded(tmp_path, manifest)


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        [],
        "processes",
        None,
        {"processes": []},
        {"processes": None},
        {"processes": {"api": {"path": "sh"}}},
        {"processes": [5]},
        {"processes": [{"path": "sh"}]},
        {"processes": [{"name": "api"}]},
        {**with_process(), "kill_timout": 1},
        {**with_process(), "kill_timeout": -1},
        {**with_process(), "groups": [{"name": "g", "strategy": "one_for_all", "members": []}]},
        {**with_process(), "groups": [{"name": "g", "members": ["db"]}]},
        {**with_process(), "groups": [{"name": "g", "strategy": "all", "members": ["db"]}]},
        {**with_process(), "groups": [{"strategy": "one_for_all", "members": ["db"]}]},
        {**with_process(), "groups": {"name": "g"}},
        {**with_process(), "stop_within_sec": 0},
        {**with_process(), "stop_within_sec": None},
        {**with_process(), "base_directory": 5},
        {**with_process(), "control_server": ["x"]},
        {**with_process(), "$schema": 5},
        {**with_process(), "schema_address": "./manifest.schema.json"},
    ],
    ids=json.dumps,
)
def test_it_refuses_a_bad_manifest_as_the_loader_does(tmp_path: Path, manifest: object) -> None:
    assert complaints(manifest) != []
    assert not is_loaded(tmp_path, manifest)


def test_the_address_of_the_schema_is_no_field_that_a_typo_may_hit(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"$shema": "x", **with_process()}))
    with pytest.raises(ManifestError, match=r"\$shema: unknown key; did you mean '\$schema'\?"):
        load_manifest(path)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_it_or_writes_it(ask: Ask) -> None:
    printed = ask("schema")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert json.loads(printed.stdout) == SCHEMA
    written = ask("schema", "--output", "manifest.schema.json")
    assert (written.returncode, written.stdout, written.stderr) == (0, "", "")
    assert (ask.folder / "manifest.schema.json").read_text(encoding="utf-8") == printed.stdout


def test_a_file_that_cannot_be_written_is_told(ask: Ask) -> None:
    answer = ask("schema", "-o", "no/such/folder.json")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "cannot write no/such/folder.json: No such file or directory\n"


def test_the_help_and_the_documents_have_the_lines_for_editors(ask: Ask) -> None:
    answer = ask("schema", "--help")
    assert answer.returncode == 0
    documents = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    for line in (
        "# yaml-language-server: $schema=./manifest.schema.json",
        "#:schema ./manifest.schema.json",
        '"$schema": "./manifest.schema.json"',
    ):
        assert line in answer.stdout
        assert line in documents


def test_the_documents_show_a_field_as_it_is() -> None:
    documents = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```json\n(.*?)```", documents, re.DOTALL)
    ((key, described),) = json.loads(f"{{{shown}}}").items()
    known = DEFINITIONS["Process"]["properties"][key]
    assert described == {**known, "pattern": "…"}


def test_the_command_itself_returns_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert schema(None, "json") == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
    assert schema(tmp_path / "s.json", "json") == 0
    assert schema(tmp_path / "no" / "s.json", "json") == 1
    assert "cannot write " in capsys.readouterr().err
