// Tables whose rows are changed in place and moved through with the arrow keys; and that of units, a row for each.

import { duration, el, setClass, setText, since } from "./dom.js";
import { badness, inTrouble, look } from "./stages.js";

const COUNTED = new Set(["ready", "unhealthy", "starting", "stopping"]);

const KEYS = {
  name: (unit) => unit.name,
  state: badness,
  up: (unit) => (COUNTED.has(look(unit)) && unit.started_at ? since(unit.started_at) : -1),
  restarts: (unit) => -unit.restarts,
  cpu: (unit, used) => -(used?.family_cpu_percent ?? -1),
  memory: (unit, used) => -(used?.family_memory_mb ?? -1),
};

// The rows of a table, each with a button that opens what its data-name says.
export class Rows {
  constructor(body, onChoose) {
    this.body = body;
    this.rows = new Map();
    body.addEventListener("keydown", (event) => this.onKey(event));
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) onChoose(row.dataset.name);
    });
    body.addEventListener("focusin", (event) => this.rove(event.target.closest("tr")));
  }

  visible() {
    return [...this.body.rows].filter((each) => !each.hidden);
  }

  // One row at a time is reached with the tabulator key.
  rove(row) {
    if (!row) return;
    for (const each of this.body.querySelectorAll("button[tabindex='0']")) each.tabIndex = -1;
    row.querySelector("button").tabIndex = 0;
  }

  roveSomewhere() {
    if (!this.body.querySelector("tr:not([hidden]) button[tabindex='0']")) this.rove(this.visible()[0]);
  }

  focus(row) {
    row?.querySelector("button").focus();
  }

  // Rows are moved only where they stand wrong: a row with the focus keeps it.
  order(rows) {
    const focused = document.activeElement;
    let moved = false;
    let at = this.body.firstElementChild;
    for (const row of rows) {
      if (row === at) {
        at = at.nextElementSibling;
      } else {
        this.body.insertBefore(row, at);
        moved = true;
      }
    }
    if (moved && this.body.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  onKey(event) {
    const row = event.target.closest("tr");
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const visible = this.visible();
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    const at = visible.indexOf(row);
    if (step) this.focus(visible[Math.min(visible.length - 1, Math.max(0, at + step))]);
    else if (event.key === "Home") this.focus(visible[0]);
    else if (event.key === "End") this.focus(visible.at(-1));
    else return;
    event.preventDefault();
  }
}

export class Table extends Rows {
  constructor(table, onChoose) {
    super(table.tBodies[0], onChoose);
    this.heads = [...table.querySelectorAll("th[data-sort]")];
    this.words = "";
    this.show = "all";
    this.stage = null;
    this.sort = "state";
    this.turned = false;
    for (const head of this.heads) {
      head.firstElementChild.addEventListener("click", () => this.sortBy(head.dataset.sort));
    }
    this.showSort();
  }

  sortBy(key) {
    this.turned = this.sort === key && !this.turned;
    this.sort = key;
    this.showSort();
    this.body.dispatchEvent(new Event("sorted", { bubbles: true }));
  }

  showSort() {
    for (const head of this.heads) {
      const sorted = head.dataset.sort === this.sort;
      head.setAttribute("aria-sort", sorted ? (this.turned ? "descending" : "ascending") : "none");
    }
  }

  update(units, stats, chosen) {
    for (const [name, { row }] of this.rows) {
      if (units.has(name)) continue;
      row.remove();
      this.rows.delete(name);
    }
    let shown = 0;
    for (const unit of units.values()) {
      const cells = this.rows.get(unit.name) ?? this.make(unit.name);
      this.fill(cells, unit, stats[unit.name], unit.name === chosen);
      if (!cells.row.hidden) shown += 1;
    }
    this.sortRows(units, stats);
    this.roveSomewhere();
    return shown;
  }

  fill(cells, unit, used, chosen) {
    const how = look(unit), bad = inTrouble(unit);
    setText(cells.state, how);
    setClass(cells.state, `badge stage-${how}`);
    const counts = COUNTED.has(how) && unit.started_at;
    setText(cells.up, counts ? duration(since(unit.started_at)) : "");
    setText(cells.restarts, unit.restarts ? String(unit.restarts) : "");
    setText(cells.cpu, used ? used.family_cpu_percent.toFixed(1) : "");
    setText(cells.memory, used ? used.family_memory_mb.toFixed(1) : "");
    setText(cells.reason, unit.reason);
    setClass(cells.row, `${chosen ? "chosen" : ""}${bad ? " bad" : ""}`);
    if (cells.row.hidden === this.matches(unit)) cells.row.hidden = !cells.row.hidden;
    if (cells.button.getAttribute("aria-expanded") !== String(chosen)) cells.button.setAttribute("aria-expanded", String(chosen));
  }

  matches(unit) {
    if (this.stage !== null && look(unit) !== this.stage) return false;
    if (this.show === "bad" ? !inTrouble(unit) : this.show !== "all" && unit.kind !== this.show) return false;
    const text = `${unit.name} ${unit.kind} ${unit.state} ${look(unit)} ${unit.reason}`.toLowerCase();
    return this.words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  sortRows(units, stats) {
    const key = KEYS[this.sort];
    const all = [...units.values()].map((unit) => [key(unit, stats[unit.name]), this.rows.get(unit.name).row]);
    all.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    if (this.turned) all.reverse();
    this.order(all.map(([, row]) => row));
  }

  make(name) {
    const button = el("button", { type: "button", class: "unit", tabindex: "-1", "aria-controls": "detail", "aria-expanded": "false" }, name);
    const state = el("span", { class: "badge" });
    const up = el("td", { class: "number wide" }), restarts = el("td", { class: "number middle" });
    const cpu = el("td", { class: "number middle" }), memory = el("td", { class: "number middle" });
    const reason = el("td", { class: "reason" });
    const row = el("tr", { "data-name": name },
      el("th", { scope: "row", class: "name" }, button), el("td", { class: "state" }, state), up, restarts, cpu, memory, reason);
    this.body.append(row);
    const cells = { row, button, state, up, restarts, cpu, memory, reason };
    this.rows.set(name, cells);
    return cells;
  }
}
