"""The graph says who waits for whom, in texts that Mermaid and Graphviz can read."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from html import unescape
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cli._drawing import (
    FILLS,
    RESTARTS,
    Box,
    Drawing,
    Edge,
    Node,
    draw,
    escape_dot,
    escape_mermaid,
    to_dot,
    to_mermaid,
)
from runtime.cli._graph import DrawingError, choose_format, graph, render
from runtime.manifest import Manifest
from runtime.process.readiness import STRATEGIES
from runtime.supervision.graph import Condition
from runtime.supervision.restart import RestartWhen

if TYPE_CHECKING:
    from tests.cli.conftest import Ask

ROOT = Path(__file__).parents[2]

needs_dot = pytest.mark.skipif(
    shutil.which("dot") is None,
    reason="Graphviz's program `dot` is not here: apt-get install graphviz",
)

ONCE: dict[str, Any] = {"shutdown_strategy": "do_not_restart"}
ON_FAILURE: dict[str, Any] = {"restart": {"when": "failure"}}

#: Names that mean something to Mermaid, to Graphviz, to HTML or to Markdown.
ODD = [
    *("a b", " ", 'quote "x"', "it's", "<b>bold<br>", "#35;", "&amp; &lt;", "&", "back\\slash"),
    *("trailing\\", "\\N \\G \\n \\l", '\\"', "1. list", "- item", "`code`", "*i*", "__b__", "_x_"),
    *("style:x#1;", "classDef:#f;", "%%{init: {}}%%", "%% comment", "end", "graph", "subgraph"),
    *("default", "click", "o", "x", "x;y", "a|b", "[z]", "{q}", "(r)", "--> n1", "a--b", "-->"),
    *("$HOME", "$$x^2$$", "fa:fa-car", "@{ shape: x }", "ünïcode 漢字 \U0001f600", "a\u2028b"),
    *("\xa0", "strict", "node", "legend", "ready", "n0", "e\u0301", "\x7f"),
]


def manifest(*processes: dict[str, Any]) -> Manifest:
    entries = [{"path": "/bin/sh", **process} for process in processes]
    return Manifest.model_validate({"processes": entries})


def chain(names: list[str]) -> Drawing:
    """Return a drawing in which each of *names* waits for the one before it."""
    conditions = list(Condition)
    return Drawing(
        tuple(Node(name, 1, "none", RestartWhen.NEVER) for name in names),
        tuple(
            Edge(needed, waits, conditions[index % 4])
            for index, (needed, waits) in enumerate(pairwise(names))
        ),
    )


names = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1),
    min_size=1,
    max_size=5,
    unique=True,
)


# --- what is drawn --------------------------------------------------------------------------------


def test_the_drawing_has_each_process_and_what_it_waits_for() -> None:
    made = draw(
        manifest(
            {
                "name": "api",
                "dependencies": ["db", {"name": "migrate", "condition": "completed_successfully"}],
            },
            {"name": "migrate", "dependencies": [{"name": "db", "condition": "started"}], **ONCE},
            {"name": "db", "ready_strategy": "tcp", "ready_params": {"port": 1}, **ON_FAILURE},
        )
    )
    assert made == Drawing(
        (
            Node("db", 1, "tcp", RestartWhen.FAILURE),
            Node("migrate", 1, "none", RestartWhen.NEVER),
            Node("api", 1, "none", RestartWhen.ALWAYS),
        ),
        (
            Edge("db", "migrate", Condition.STARTED),
            Edge("db", "api", Condition.READY),
            Edge("migrate", "api", Condition.COMPLETED_SUCCESSFULLY),
        ),
    )


def test_a_service_is_a_node_between_processes() -> None:
    made = draw(
        Manifest.model_validate(
            {
                "processes": [
                    {"name": "db", "path": "/bin/sh"},
                    {"name": "api", "path": "/bin/sh", "dependencies": ["cache"]},
                ],
                "services": [
                    {
                        "name": "cache",
                        "class": "runtime.service.plain:idle",
                        "dependencies": [{"name": "db", "condition": "started"}],
                    }
                ],
            }
        )
    )
    assert set(made.nodes) == {
        Node("db", 1, "none", RestartWhen.ALWAYS),
        Node("cache", 1, "service", RestartWhen.NEVER),
        Node("api", 1, "none", RestartWhen.ALWAYS),
    }
    assert set(made.edges) == {
        Edge("db", "cache", Condition.STARTED),
        Edge("cache", "api", Condition.READY),
    }
    names, edges = read_mermaid(to_mermaid(made))
    assert set(names) == {"db", "cache", "api"}
    assert ("cache", "ready", "api") in edges
    for text in (to_mermaid(made), to_dot(made)):
        assert FILLS["service"] in text
        assert "service" in text


def test_replicas_are_one_node() -> None:
    made = draw(
        manifest(
            {"name": "api", "replicas": 3, "dependencies": ["db"]},
            {"name": "db", "replicas": 2},
            {"name": "web", "dependencies": ["api"]},
        )
    )
    assert [(node.name, node.count) for node in made.nodes] == [("db", 2), ("api", 3), ("web", 1)]
    assert [node.label for node in made.nodes] == [
        "db \N{MULTIPLICATION SIGN}2",
        "api \N{MULTIPLICATION SIGN}3",
        "web",
    ]
    assert made.edges == (
        Edge("db", "api", Condition.READY),
        Edge("api", "web", Condition.READY),
    )


def test_a_group_is_a_box_around_its_nodes() -> None:
    made = draw(
        Manifest.model_validate(
            {
                "processes": [
                    {"name": "api", "path": "/bin/sh", "replicas": 2},
                    {"name": "db", "path": "/bin/sh"},
                ],
                "services": [{"name": "cache", "class": "runtime.service.plain:idle"}],
                "groups": [
                    {"name": 'w"eb', "strategy": "one_for_all", "members": ["api-0", "cache"]},
                    {"name": "rest", "strategy": "rest_for_one", "members": ["db", "api-1"]},
                ],
            }
        )
    )
    assert made.boxes == (
        Box('w"eb: one for all', ("api", "cache")),
        Box("rest: rest for one", ("db",)),
    )
    text = to_mermaid(made)
    names, _ = read_mermaid(text)
    numbers = [
        f"        n{names.index(name)}" for name in ("api \N{MULTIPLICATION SIGN}2", "cache")
    ]
    lines = text.splitlines()
    first = lines.index('    subgraph g0["w#34;eb#58; one for all"]')
    assert lines[first + 1 : first + 4] == [*numbers, "    end"]
    dot = to_dot(made)
    assert (
        '    subgraph cluster_0 {\n        label="w\\"eb: one for all";\n'
        '        "api";\n        "cache";\n    }\n'
    ) in dot


def test_each_way_to_become_ready_and_each_policy_has_its_look() -> None:
    assert STRATEGIES.keys() <= FILLS.keys()
    assert len(set(FILLS.values())) == len(FILLS)
    assert RESTARTS.keys() == set(RestartWhen)
    assert len({look.mermaid for look in RESTARTS.values()}) == len(RESTARTS)
    assert len({look.dot for look in RESTARTS.values()}) == len(RESTARTS)


@pytest.mark.parametrize("fill", FILLS.values())
def test_ink_is_readable_on_each_fill(fill: str) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ink = re.findall(r",color:(#\w+)", to_mermaid(chain(["a"])))[0]
    assert (luminance(fill) + 0.05) / (luminance(ink) + 0.05) >= 7  # WCAG 2, level AAA


@pytest.mark.parametrize(
    ("strategy", "readiness"), [(None, "none"), ("file", "file"), ("warm", "plugin")]
)
def test_what_is_not_built_in_is_a_plugins(strategy: str | None, readiness: str) -> None:
    fields = {"ready_strategy": strategy, "ready_params": {"path": "x"}}
    assert [node.readiness for node in draw(manifest({"name": "a", **fields})).nodes] == [readiness]


def test_the_legend_has_what_occurs_only() -> None:
    made = Drawing(
        (Node("a", 1, "plugin", RestartWhen.NEVER), Node("b", 1, "tcp", RestartWhen.NEVER)), ()
    )
    assert (made.readiness, made.restarts) == (["tcp", "plugin"], [RestartWhen.NEVER])
    for text in (to_mermaid(made), to_dot(made)):
        assert "ready by tcp" in text
        assert "ready by a plugin" in text
        assert "runs once" in text
        assert "spawned" not in text
        assert "restarted" not in text


# --- Mermaid --------------------------------------------------------------------------------------

SAMPLE = Drawing(
    (
        Node("db", 1, "tcp", RestartWhen.FAILURE),
        Node("make it", 1, "none", RestartWhen.NEVER),
        Node("api", 2, "none", RestartWhen.ALWAYS),
    ),
    (
        Edge("db", "api", Condition.READY),
        Edge("make it", "api", Condition.COMPLETED_SUCCESSFULLY),
    ),
)


def test_the_text_for_mermaid() -> None:
    expected = """
        flowchart LR
            n0("db"):::tcp
            n1(["make it"]):::none
            n2["api #215;2"]:::none
            n0 --> n2
            n1 -->|"completed_successfully"| n2
            subgraph legend["Legend"]
                ready_tcp["ready by tcp"]:::tcp
                ready_none["ready once spawned"]:::none
                restart_always["always restarted"]:::outline
                restart_failure("restarted after a failure"):::outline
                restart_never(["runs once"]):::outline
            end
            classDef tcp fill:#a6cee3,stroke:#1f2328,color:#1f2328
            classDef none fill:#e6e6e6,stroke:#1f2328,color:#1f2328
            classDef outline fill:#ffffff,stroke:#1f2328,color:#1f2328
    """
    assert to_mermaid(SAMPLE) == dedent(expected).lstrip()


#: All that a label may hold. Anything else would be read by one of Mermaid's parsers, or by the
#: Markdown one behind it.
LABEL = r'"((?:#\d+;|[^\W_]|(?<=[^\W_])[-_.](?=[^\W_])| )+)"'
NODE = re.compile(rf"(\w+)(?:\[{LABEL}\]|\({LABEL}\)|\(\[{LABEL}\]\)):::(\w+)")
EDGE = re.compile(r'(n\d+) -->(?:\|"(\w+)"\|)? (n\d+)')
STYLE = re.compile(r"classDef (\w+) fill:#\w{6},stroke:#\w{6},color:#\w{6}")


def read_mermaid(text: str) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Return names and edges of a flowchart in the part of the language that we write."""
    first, *lines = [line.strip(" ") for line in text.removesuffix("\n").split("\n")]
    assert first == "flowchart LR"
    nodes: dict[str, str] = {}
    edges: list[tuple[str, str, str]] = []
    used, styled = set(), set()
    for line in lines:
        if node := NODE.fullmatch(line):
            label = next(filter(None, node.groups()[1:4]))
            assert node[1] not in nodes
            nodes[node[1]] = re.sub(r"#(\d+);", lambda match: chr(int(match[1])), label)
            used.add(node[5])
        elif edge := EDGE.fullmatch(line):
            edges.append((nodes[edge[1]], edge[2] or "ready", nodes[edge[3]]))
        elif style := STYLE.fullmatch(line):
            styled.add(style[1])
        else:
            assert re.fullmatch(r'subgraph (legend|g\d+)\["[^"]+"\]|n\d+|end', line)
    assert used == styled
    return [name for key, name in nodes.items() if re.fullmatch(r"n\d+", key)], edges


def expected_edges(drawing: Drawing) -> list[tuple[str, str, str]]:
    return [(edge.needed, str(edge.condition), edge.waits) for edge in drawing.edges]


@given(names)
def test_mermaid_gets_every_name_as_it_is(given_names: list[str]) -> None:
    drawing = chain(given_names)
    assert read_mermaid(to_mermaid(drawing)) == (given_names, expected_edges(drawing))


def test_mermaid_gets_odd_names_as_they_are() -> None:
    drawing = chain(ODD)
    assert read_mermaid(to_mermaid(drawing)) == (ODD, expected_edges(drawing))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("api-0", "api-0"),
        ("my_app.v1", "my_app.v1"),
        ("-a", "#45;a"),
        ("1. x", "1#46; x"),
        ("a--b", "a#45;#45;b"),
        ('"', "#34;"),
    ],
)
def test_for_mermaid_no_more_is_escaped_than_has_to_be(name: str, label: str) -> None:
    assert escape_mermaid(name) == label


# --- Graphviz -------------------------------------------------------------------------------------


def test_the_text_for_graphviz() -> None:
    expected = """
        digraph manifest {
            graph [rankdir=LR, FONT];
            node [FONT, style=filled, color="#1f2328", fontcolor="#1f2328"];
            edge [FONT, fontsize=11];
            "db" [label="db", shape=box, style="filled,rounded", fillcolor="#a6cee3"];
            "make it" [label="make it", shape=oval, fillcolor="#e6e6e6"];
            "api" [label="api TIMES2", shape=box, fillcolor="#e6e6e6"];
            "db" -> "api";
            "make it" -> "api" [label="completed_successfully"];
            subgraph cluster_legend {
                label="Legend";
                "ready/tcp" [label="ready by tcp", shape=box, fillcolor="#a6cee3"];
                "ready/none" [label="ready once spawned", shape=box, fillcolor="#e6e6e6"];
                "restart/always" [label="always restarted", shape=box, fillcolor="#ffffff"];
                "restart/failure" [label="restarted after a failure", ROUNDED, fillcolor="#ffffff"];
                "restart/never" [label="runs once", shape=oval, fillcolor="#ffffff"];
            }
        }
    """
    words = {
        "FONT": 'fontname="Helvetica,Arial,sans-serif"',
        "ROUNDED": 'shape=box, style="filled,rounded"',
        "TIMES": "\N{MULTIPLICATION SIGN}",
    }
    for short, long in words.items():
        expected = expected.replace(short, long)
    assert to_dot(SAMPLE) == dedent(expected).lstrip()


@given(st.text())
def test_no_quoted_string_for_graphviz_ends_before_its_end(text: str) -> None:
    escaped = escape_dot(text)
    assert re.fullmatch(r'(?:[^"\\]|\\["\\])*', escaped)
    assert unescape(re.sub(r"\\(.)", r"\1", escaped).replace("&amp;", "&#38;")) == unescape(
        text.replace("&", "&#38;")
    )


def texts_of(svg: bytes) -> list[str]:
    """Return what an SVG file says, in its order."""
    space = "{http://www.w3.org/2000/svg}"
    return [each.text or "" for each in ET.fromstring(svg).iter(f"{space}text")]  # noqa: S314 - ours


@needs_dot
@pytest.mark.parametrize("name", [name for name in ODD if name.isprintable() and name.strip()])
def test_graphviz_shows_a_name_as_it_is(name: str) -> None:
    texts = texts_of(render(to_dot(chain([name, "other"])).encode(), "svg"))
    assert name in [text.replace("\xa0", " ") for text in texts]


@needs_dot
def test_graphviz_draws_every_edge() -> None:
    plain = render(to_dot(chain(ODD)).encode(), "plain").decode()
    assert len(re.findall(r"^edge ", plain, re.MULTILINE)) == len(ODD) - 1
    assert plain.count("completed_successfully") == (len(ODD) - 1) // 4


@needs_dot
@pytest.mark.parametrize(
    ("ending", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-")]
)
def test_a_picture_is_drawn_into_a_file(ask: Ask, ending: str, start: bytes) -> None:
    path = ask.write({"name": "db"}, {"name": "api", "dependencies": ["db"]})
    answer = ask("graph", path, "--output", f"graph.{ending}")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert (ask.folder / f"graph.{ending}").read_bytes().startswith(start)


@needs_dot
def test_a_picture_is_drawn_on_standard_output(ask: Ask) -> None:
    answer = ask("graph", ask.write({"name": "a"}), "--format", "svg")
    assert answer.returncode == 0
    shown = {"a", "Legend", "ready once spawned", "always restarted"}
    assert set(texts_of(answer.stdout.encode())) == shown


@needs_dot
def test_what_graphviz_cannot_read_is_told_in_its_words() -> None:
    with pytest.raises(DrawingError, match=r"`dot -Tsvg` failed with 1: .*syntax error"):
        render(b"digraph {", "svg")


def test_without_graphviz_the_package_is_named(ask: Ask) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    path = ask.write({"name": "a", "path": shell})
    answer = ask("graph", path, "--format", "svg", env={"PATH": str(ask.folder)})
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == (
        "svg is drawn by Graphviz's program `dot`, which is not there: install the package graphviz"
        " (`apt-get install graphviz`, `dnf install graphviz`), or use --format mermaid or dot,"
        " which need nothing\n"
    )
    for without in ("mermaid", "dot"):
        assert ask("graph", path, "--format", without, env={"PATH": "/nowhere"}).returncode == 0


def test_a_program_of_that_name_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dot"
    monkeypatch.setenv("PATH", str(tmp_path))
    program.write_text("#!/bin/sh\nread line; exit 3\n")
    program.chmod(0o755)
    with pytest.raises(DrawingError, match="`dot -Tpng` failed with 3: no reason given"):
        render(b"digraph {}\n", "png")
    program.write_text("#!/no/such/interpreter\n")
    with pytest.raises(DrawingError, match="which is not there"):
        render(b"digraph {}", "png")
    program.write_bytes(b"\x00")
    with pytest.raises(DrawingError, match="which Exec format error: install the package graphviz"):
        render(b"digraph {}", "png")


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_format", "output", "chosen"),
    [
        (None, None, "mermaid"),
        ("dot", None, "dot"),
        (None, "g.mmd", "mermaid"),
        (None, "g.mermaid", "mermaid"),
        (None, "g.dot", "dot"),
        (None, "g.gv", "dot"),
        (None, "g.SVG", "svg"),
        (None, "g.png", "png"),
        (None, "g.pdf", "pdf"),
        ("dot", "g.svg", "dot"),
        ("mermaid", "README", "mermaid"),
        ("png", "g", "png"),
    ],
)
def test_the_format_is_the_one_given_else_that_of_the_ending(
    given_format: str | None, output: str | None, chosen: str
) -> None:
    path = None if output is None else Path(output)
    assert choose_format(given_format, path, terminal=True) == chosen


@pytest.mark.parametrize(
    ("given_format", "output", "words"),
    [
        (None, "g.jpeg", "'g.jpeg' ends in none of .mmd, .*: give --format as well"),
        (None, "graph", "ends in none of"),
        ("png", None, "a terminal cannot show png: give --output FILE"),
        ("pdf", None, "a terminal cannot show pdf"),
    ],
)
def test_what_cannot_be_meant_is_a_wrong_use(
    given_format: str | None, output: str | None, words: str
) -> None:
    path = None if output is None else Path(output)
    with pytest.raises(click.UsageError, match=words):
        choose_format(given_format, path, terminal=True)


@pytest.mark.parametrize("name", ["g.mmd", "g.dot"])
def test_a_text_goes_into_a_file_or_to_standard_output(ask: Ask, name: str) -> None:
    path = ask.write({"name": "a"}, {"name": "ü", "dependencies": ["a"]})
    written = ask("graph", path, "-o", name)
    assert (written.returncode, written.stdout, written.stderr) == (0, "", "")
    kind = "dot" if name.endswith("dot") else "mermaid"
    printed = ask("graph", path, "--format", kind)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout == (ask.folder / name).read_text(encoding="utf-8")
    assert '"ü"' in printed.stdout


def test_a_wrong_manifest_is_told_and_not_drawn(ask: Ask) -> None:
    answer = ask("graph", ask.write({"name": "a", "dependencies": ["b"]}), "-o", "g.mmd")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.endswith("processes.a.dependencies.0: there is no process 'b'\n")
    assert not (ask.folder / "g.mmd").exists()


def test_a_file_that_cannot_be_written_is_told(ask: Ask) -> None:
    answer = ask("graph", ask.write({"name": "a"}), "-o", "no/such/folder.mmd")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "cannot write no/such/folder.mmd: No such file or directory\n"


def test_the_command_itself_returns_the_status(
    ask: Ask, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ask.write({"name": "a"})
    output = ask.folder / "g.dot"
    assert graph(path, None, None) == 0
    assert capfd.readouterr().out.startswith("flowchart LR\n")
    assert graph(path, None, output) == 0
    assert output.read_text().startswith("digraph")
    assert graph(ask.folder / "missing.yaml", None, output) == 2
    monkeypatch.setenv("PATH", "/nowhere")
    sh = ask.write({"name": "a", "path": "/bin/sh"})
    assert graph(sh, "svg", output) == 1
    assert "install the package graphviz" in capfd.readouterr().err


def test_the_drawing_in_the_documents_is_what_the_command_prints(ask: Ask) -> None:
    command = "python -m runtime graph examples/quickstart/manifest.yaml"
    text = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
    found = re.search(rf"{re.escape(command)}\n.*?```mermaid\n(.*?)```", text, re.DOTALL)
    assert found is not None
    ask.folder = ROOT
    assert found[1] == ask(*command.split()[3:]).stdout
