// The dependency graph: layers from left to right, so that what is needed stands before who needs it.

import { setClass, svg } from "./dom.js";
import { inTrouble, look, MARKS, QUIET, reach } from "./stages.js";

const EDGE = 8, MANY = 60, MOST_ROWS = 30;
const ROOMY = { width: 150, height: 30, gapX: 64, gapY: 10, column: 16, letters: 17, font: 12, smallest: 0.6 };
const DENSE = { width: 96, height: 19, gapX: 32, gapY: 4, column: 6, letters: 12, font: 10.5, smallest: 0.9 };
const CONDITIONS = { started: "started", completed: "ended", completed_successfully: "succeeded" };

export class Graph {
  constructor(container, onChoose) {
    this.container = container;
    this.onChoose = onChoose;
    this.shape = "";
    this.nodes = new Map();
    this.edges = [];
    this.units = new Map();
    this.zoom = null; // as large as fits
    this.width = 0;
    this.hovered = null;
    new ResizeObserver(() => this.fit()).observe(container);
  }

  scale(factor) {
    this.zoom = Math.min(2, Math.max(0.3, (this.zoom ?? this.fitting()) * factor));
    this.resize();
  }

  fit() {
    if (Math.abs(this.container.clientWidth - this.width) < 40 || !this.units.size) return;
    this.draw();
    this.paint();
  }

  update(units, chosen, matches) {
    this.units = units;
    this.chosen = chosen;
    this.matches = matches;
    const shape = JSON.stringify([...units.values()].map((unit) => [unit.name, unit.requirements]));
    if (shape !== this.shape) {
      this.shape = shape;
      this.draw();
    }
    this.paint();
  }

  paint() {
    const around = this.around(this.hovered ?? this.chosen);
    for (const [name, node] of this.nodes) {
      const unit = this.units.get(name);
      if (!unit) continue;
      const bad = inTrouble(unit);
      const how = look(unit);
      const dim = QUIET.has(how) && (around ? !around.has(name) : !this.matches(unit));
      setClass(node.group, `node stage-${how} ${how}${bad ? " bad" : ""}${dim ? " dim" : ""}${name === this.chosen ? " chosen" : ""}`);
      set(node.title, `${name}: ${how}, ${unit.reason}`);
      set(node.mark, MARKS[how] ?? "?");
    }
    for (const { path, from, to } of this.edges) {
      const unit = this.units.get(to);
      const unmet = unit?.waiting_for.includes(from) ? " unmet" : "";
      const lit = around?.has(from) && around.has(to) ? " lit" : "";
      setClass(path, `edge${unmet}${lit}`);
    }
  }

  // A unit with all that it needs and all that needs it.
  around(name) {
    if (name === null || name === undefined || !this.units.has(name)) return null;
    const needs = (each) => needsOf(this.units.get(each), this.units);
    const needed = (each) => this.dependents.get(each) ?? [];
    return new Set([name, ...reach(name, needs), ...reach(name, needed)]);
  }

  draw() {
    const units = this.units;
    const size = units.size > MANY ? DENSE : ROOMY;
    this.smallest = size.smallest;
    this.width = this.container.clientWidth;
    const places = layOut(units, size, Math.max(this.width, 300));
    const edges = svg("g"), labels = svg("g"), nodes = svg("g");
    this.nodes.clear();
    this.edges = [];
    this.dependents = new Map();
    for (const unit of units.values()) {
      for (const from of needsOf(unit, units)) {
        const condition = unit.requirements.find((each) => each.name === from)?.condition ?? "inner";
        this.dependents.set(from, [...(this.dependents.get(from) ?? []), unit.name]);
        const line = connect(places.get(from), places.get(unit.name), size);
        const path = svg("path", { class: "edge", d: line.d });
        edges.append(path);
        this.edges.push({ path, from, to: unit.name });
        if (CONDITIONS[condition] && size === ROOMY) {
          labels.append(svg("text", { class: "edge-label", x: line.x, y: line.y - 3, "text-anchor": "middle" }, CONDITIONS[condition]));
        }
      }
    }
    for (const [name, place] of places) nodes.append(this.makeNode(name, place, size));
    const all = [...places.values()];
    this.size = [
      Math.max(...all.map(([x]) => x), 0) + size.width + EDGE,
      Math.max(...all.map(([, y]) => y), 0) + size.height + EDGE,
    ];
    this.svg = svg("svg", { viewBox: `0 0 ${this.size.join(" ")}`, "aria-hidden": "true", class: size === DENSE ? "dense" : "" }, edges, labels, nodes);
    this.container.replaceChildren(this.svg);
    this.resize();
  }

  makeNode(name, [x, y], size) {
    const short = name.length > size.letters ? `${name.slice(0, size.letters - 1)}…` : name;
    const title = svg("title"), middle = size.height / 2;
    const mark = svg("text", { class: "mark", x: size.height / 2, y: middle, "text-anchor": "middle", "dominant-baseline": "central" });
    const group = svg("g", {
      class: "node", transform: `translate(${x} ${y})`, "data-node": name,
      onclick: () => this.onChoose(name),
      onpointerenter: () => { this.hovered = name; this.paint(); },
      onpointerleave: () => { this.hovered = null; this.paint(); },
    }, title,
    svg("rect", { width: size.width, height: size.height, rx: 6 }), mark,
    svg("text", { x: size.height, y: middle, "dominant-baseline": "central", "font-size": size.font }, short));
    this.nodes.set(name, { group, title, mark });
    return group;
  }

  fitting() {
    return Math.min(1, Math.max(this.smallest, this.container.clientWidth / this.size[0]));
  }

  resize() {
    if (!this.svg) return;
    const zoom = this.zoom ?? this.fitting();
    this.svg.setAttribute("width", Math.floor(this.size[0] * zoom));
    this.svg.setAttribute("height", Math.floor(this.size[1] * zoom));
  }
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function connect([x1, y1], [x2, y2], size) {
  const start = [x1 + size.width, y1 + size.height / 2], end = [x2, y2 + size.height / 2];
  const bend = Math.min(size.gapX, Math.max(12, (end[0] - start[0]) / 2));
  return {
    d: `M${start} C${start[0] + bend},${start[1]} ${end[0] - bend},${end[1]} ${end}`,
    x: (start[0] + end[0]) / 2,
    y: (start[1] + end[1]) / 2,
  };
}

// What a unit is drawn behind: what it needs, and the unit that it lives in.
function needsOf(unit, units) {
  const outer = unit.name.slice(0, Math.max(0, unit.name.lastIndexOf("/")));
  return [outer, ...unit.requirements.map((each) => each.name)].filter((name) => units.has(name));
}

// The places of all units. A layer with many of them is wrapped into as many columns as it takes to
// fit the width; those that have to do with no other stand below.
function layOut(units, size, available) {
  const { layers, alone } = findLayers(units);
  const rows = chooseRows(layers, size, available);
  const tallest = Math.max(0, ...layers.map((layer) => Math.min(layer.length, rows)));
  const places = new Map();
  let x = EDGE;
  for (const layer of layers) {
    sortByNeeds(layer, units, places);
    const columns = Math.ceil(layer.length / rows);
    const height = Math.ceil(layer.length / columns);
    const top = EDGE + ((tallest - height) / 2) * (size.height + size.gapY);
    layer.forEach((name, index) => places.set(name, [
      x + Math.floor(index / height) * (size.width + size.column),
      top + (index % height) * (size.height + size.gapY),
    ]));
    x += columns * (size.width + size.column) - size.column + size.gapX;
  }
  const columns = Math.max(1, Math.floor((available - EDGE) / (size.width + size.column)));
  const top = EDGE + (tallest ? tallest * (size.height + size.gapY) + size.gapY : 0);
  alone.forEach((name, index) => places.set(name, [
    EDGE + (index % columns) * (size.width + size.column),
    top + Math.floor(index / columns) * (size.height + size.gapY),
  ]));
  return places;
}

function findLayers(units) {
  const rank = new Map();
  // There are no circles among them.
  const rankOf = (name) => {
    if (!rank.has(name)) rank.set(name, Math.max(-1, ...needsOf(units.get(name), units).map(rankOf)) + 1);
    return rank.get(name);
  };
  const needed = new Set([...units.values()].flatMap((unit) => needsOf(unit, units)));
  const layers = [], alone = [];
  for (const unit of units.values()) {
    if (needed.has(unit.name) || needsOf(unit, units).length) (layers[rankOf(unit.name)] ??= []).push(unit.name);
    else alone.push(unit.name);
  }
  return { layers, alone };
}

// The fewest rows with which all layers side by side fit.
function chooseRows(layers, size, available) {
  const widthWith = (rows) => layers.reduce(
    (sum, layer) => sum + Math.ceil(layer.length / rows) * (size.width + size.column) + size.gapX - size.column, EDGE);
  for (let rows = 5; rows <= MOST_ROWS; rows += 1) if (widthWith(rows) - size.gapX <= available) return rows;
  return MOST_ROWS;
}

function sortByNeeds(layer, units, places) {
  const weight = new Map(layer.map((name) => {
    const ys = needsOf(units.get(name), units).map((each) => places.get(each)?.[1] ?? 0);
    return [name, ys.length ? ys.reduce((a, b) => a + b) / ys.length : 0];
  }));
  layer.sort((a, b) => weight.get(a) - weight.get(b));
}
