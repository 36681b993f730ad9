"""How the dependency graph is drawn: Mermaid and DOT text from a manifest, and nothing else.

The fill of a node tells how its process becomes ready, its outline when it is restarted. An arrow
leads from what is needed to what waits for it, so that a drawing reads in the order of the start.
What is restarted together stands in a box.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runtime._specs import Entry
from runtime.process import Process, ProcessManifest
from runtime.process.readiness import STRATEGIES
from runtime.supervision.graph import Condition
from runtime.supervision.restart import RestartWhen

_PLUGIN, _SERVICE, _NONE = "plugin", "service", "none"
_RUNNER, _JOB = "runner", "job"
_INK = "#1f2328"  # on every fill, and in dark mode as well


#: The fill for each way to become ready: light, so that dark ink is readable on all of them.
FILLS: Mapping[str, str] = {
    "tcp": "#a6cee3",
    "http": "#b2df8a",
    "exec": "#fb9a99",
    "file": "#fdbf6f",
    "pipe": "#cab2d6",
    "notify": "#ffff99",
    "log": "#d9b38c",
    _PLUGIN: "#f4b6e0",
    _SERVICE: "#99d8c9",
    _RUNNER: "#bdb7e5",
    _JOB: "#e8e0a9",
    _NONE: "#e6e6e6",
}


class _Outline(NamedTuple):
    mermaid: tuple[str, str]
    dot: str
    legend: str


RESTARTS: Mapping[RestartWhen, _Outline] = {
    RestartWhen.ALWAYS: _Outline(("[", "]"), "shape=box", "always restarted"),
    RestartWhen.FAILURE: _Outline(
        ("(", ")"), 'shape=box, style="filled,rounded"', "restarted after a failure"
    ),
    RestartWhen.NEVER: _Outline(("([", "])"), "shape=oval", "runs once"),
}


@dataclass(frozen=True, slots=True)
class Node:
    """An entry of the manifest, as far as it is shown; *count* is that of its replicas."""

    name: str
    count: int
    readiness: str
    restarts: RestartWhen

    @property
    def label(self) -> str:
        """What is written into it."""
        return self.name if self.count == 1 else f"{self.name} \N{MULTIPLICATION SIGN}{self.count}"


@dataclass(frozen=True, slots=True)
class Edge:
    """*waits* needs *needed* to meet *condition*."""

    needed: str
    waits: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class Box:
    """A group, and the names of the nodes in it."""

    label: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn, in the order of the start; both legends have what occurs only."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    boxes: tuple[Box, ...] = ()

    @property
    def readiness(self) -> list[str]:
        """The ways to become ready that occur."""
        return [each for each in FILLS if any(node.readiness == each for node in self.nodes)]

    @property
    def restarts(self) -> list[RestartWhen]:
        """The policies of restart that occur."""
        return [each for each in RESTARTS if any(node.restarts is each for node in self.nodes)]


def draw(manifest: ProcessManifest) -> Drawing:
    """Return what is to be drawn of *manifest*."""
    entries: dict[str, list[Entry]] = {}
    for entry in manifest.entries():
        entries.setdefault(entry.replica_of or entry.name, []).append(entry)
    entry_of = {each.name: name for name, replicas in entries.items() for each in replicas}
    edges = (
        Edge(entry_of[requirement.name], name, requirement.condition)
        for name, replicas in entries.items()
        for entry in replicas
        for requirement in entry.requirements
    )
    nodes = (
        Node(name, len(replicas), _readiness(first), first.restart_policy.when)
        for name, replicas in entries.items()
        for first in replicas[:1]
    )
    return Drawing(tuple(nodes), tuple(dict.fromkeys(edges)), tuple(_boxes(manifest, entry_of)))


def _boxes(manifest: ProcessManifest, entry_of: Mapping[str, str]) -> Iterator[Box]:
    """Yield the groups; a node stands in one, though its replicas may be in several."""
    placed: set[str] = set()
    for group in manifest.groups:
        names = dict.fromkeys(entry_of.get(name, name) for name in group.members)
        strategy = str(group.strategy).replace("_", " ")
        yield Box(f"{group.name}: {strategy}", tuple(n for n in names if n not in placed))
        placed.update(names)


def _readiness(entry: Entry) -> str:
    if not isinstance(entry, Process):
        return entry.kind
    strategy = entry.ready_strategy
    if strategy is None:
        return _NONE
    return strategy if strategy in STRATEGIES and strategy in FILLS else _PLUGIN


def _legend(readiness: str) -> str:
    words = {
        _PLUGIN: "ready by a plugin",
        _NONE: "ready once spawned",
        _SERVICE: "a service, ready when it says so",
        _RUNNER: "a runner of tasks",
        _JOB: "a job, ready once its call is stored",
    }
    return words.get(readiness, f"ready by {readiness}")


def to_mermaid(drawing: Drawing) -> str:
    """Return the text of a Mermaid flowchart."""
    # A name may hold anything, so a node goes by a number, and its name is a label.
    number = {node.name: index for index, node in enumerate(drawing.nodes)}
    lines = ["flowchart LR"]
    lines += [
        f"    n{number[node.name]}{_mermaid_box(node.label, node.restarts)}:::{node.readiness}"
        for node in drawing.nodes
    ]
    for index, box in enumerate(drawing.boxes):
        lines.append(f'    subgraph g{index}["{escape_mermaid(box.label)}"]')
        lines += [*(f"        n{number[name]}" for name in box.names), "    end"]
    for edge in drawing.edges:
        label = "" if edge.condition is Condition.READY else f'|"{edge.condition}"|'
        lines.append(f"    n{number[edge.needed]} -->{label} n{number[edge.waits]}")
    lines.append('    subgraph legend["Legend"]')
    lines += [
        f"        ready_{each}{_mermaid_box(_legend(each))}:::{each}" for each in drawing.readiness
    ]
    lines += [
        f"        restart_{each}{_mermaid_box(RESTARTS[each].legend, each)}:::outline"
        for each in drawing.restarts
    ]
    lines.append("    end")
    lines += [
        f"    classDef {each} fill:{FILLS[each]},stroke:{_INK},color:{_INK}"
        for each in drawing.readiness
    ]
    lines.append(f"    classDef outline fill:#ffffff,stroke:{_INK},color:{_INK}")
    return _text(lines)


def _mermaid_box(label: str, restarts: RestartWhen = RestartWhen.ALWAYS) -> str:
    left, right = RESTARTS[restarts].mermaid
    return f'{left}"{escape_mermaid(label)}"{right}'


def escape_mermaid(text: str) -> str:
    """Return *text* for a quoted label: what could mean something to Mermaid is an entity.

    That is more than the quote: labels are read as Markdown (``1. x`` is a list), and before any
    line is parsed, the whole text is searched for directives, comments and styles.
    """
    around = zip(f" {text}", text, f"{text[1:]} ", strict=False)
    return "".join(
        each
        if each.isalnum() or each == " " or (each in "-_." and before.isalnum() and after.isalnum())
        else f"#{ord(each)};"
        for before, each, after in around
    )


def to_dot(drawing: Drawing) -> str:
    """Return the text of a graph in Graphviz's language."""
    font = 'fontname="Helvetica,Arial,sans-serif"'
    lines = [
        "digraph manifest {",
        f"    graph [rankdir=LR, {font}];",
        f'    node [{font}, style=filled, color="{_INK}", fontcolor="{_INK}"];',
        f"    edge [{font}, fontsize=11];",
    ]
    lines += [
        _dot_node(node.name, node.label, node.restarts, FILLS[node.readiness])
        for node in drawing.nodes
    ]
    for index, box in enumerate(drawing.boxes):
        lines += [f"    subgraph cluster_{index} {{", f"        label={_dot_id(box.label)};"]
        lines += [*(f"        {_dot_id(name)};" for name in box.names), "    }"]
    for edge in drawing.edges:
        label = "" if edge.condition is Condition.READY else f' [label="{edge.condition}"]'
        lines.append(f"    {_dot_id(edge.needed)} -> {_dot_id(edge.waits)}{label};")
    lines += ["    subgraph cluster_legend {", '        label="Legend";']
    # No name of a process holds a slash, so that none is one of these.
    lines += [
        "    " + _dot_node(f"ready/{each}", _legend(each), RestartWhen.ALWAYS, FILLS[each])
        for each in drawing.readiness
    ]
    lines += [
        "    " + _dot_node(f"restart/{each}", RESTARTS[each].legend, each, "#ffffff")
        for each in drawing.restarts
    ]
    return _text([*lines, "    }", "}"])


def _dot_node(name: str, label: str, restarts: RestartWhen, fill: str) -> str:
    look = f'label="{escape_dot(label)}", {RESTARTS[restarts].dot}, fillcolor="{fill}"'
    return f"    {_dot_id(name)} [{look}];"


def _dot_id(name: str) -> str:
    return f'"{escape_dot(name)}"'


def escape_dot(text: str) -> str:
    """Return *text* for a quoted string: labels know backslashes and HTML's entities."""
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
