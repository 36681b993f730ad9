// The invocations of tasks: a list, the newest first, read again when an event says so while somebody looks at it.

import { act, get, pause, post } from "./api.js";
import { byId, duration, el, setClass, setText, since } from "./dom.js";
import { addressOf, Invocation, lookOf, STATUSES, words } from "./invocation.js";
import { Rows } from "./table.js";

// What other processes do to the same store may be told by nobody.
const EVERY_MS = 10_000, LEAST_MS = 300, PAGE = 50, MOST_TEXT = 160;
// To count all in a large store costs more than to read a page of it.
const COUNT_EVERY_MS = 10_000;

export class Invocations {
  #wake = new AbortController();
  #counted = 0;
  #all = []; // what is shown, the newest first
  #next = null; // the cursor of what comes after it
  #grown = false; // whether somebody asked for more than the first page
  #connected = false;
  #stale = false; // whether something has happened since it was read
  #cells = new Map();
  #chips = new Map();

  constructor(place, { tree, askForToken }) {
    this.place = place;
    this.tree = tree;
    this.askForToken = askForToken;
    this.status = null;
    this.task = el("select", { id: "work-task", onchange: () => this.narrow() }, el("option", { value: "" }, "all tasks"));
    this.body = el("tbody");
    this.more = el("button", { type: "button", id: "work-more", hidden: true, onclick: () => this.readMore() }, "Show older ones");
    this.make();
    this.rows = new Rows(this.body, (id) => { location.hash = addressOf(id); });
    this.detail = new Invocation(byId("work-detail"), { tree, askForToken, onChange: () => this.readNow() });
    tree.addEventListener("invocations", () => this.hear());
    tree.addEventListener("change", () => { if (tree.connected !== this.#connected) this.hear(); });
    document.addEventListener("visibilitychange", () => this.#wake.abort());
    this.run();
  }

  make() {
    const counts = el("div", { id: "work-counts", class: "tools", role: "group", "aria-label": "Show invocations of one status only" });
    for (const each of STATUSES) {
      const shown = el("button", { type: "button", class: `chip ${lookOf(each)}`, "data-status": each, "aria-pressed": "false", hidden: true,
        onclick: () => { this.status = this.status === each ? null : each; this.narrow(); } });
      this.#chips.set(each, shown);
      counts.append(shown);
    }
    const head = (name, kind) => el("th", { scope: "col", class: kind }, name);
    this.place.append(
      el("div", { class: "column" },
        el("section", { "aria-labelledby": "work-title" },
          el("div", { class: "head" },
            el("h2", { id: "work-title", tabindex: "-1" }, "Invocations ", el("small", { id: "work-count" })),
            el("div", { class: "tools" }, el("label", {}, "Task ", this.task))),
          counts,
          el("p", { id: "work-problem", role: "status" }),
          el("table", { id: "work-list", class: "rows", "aria-labelledby": "work-title" },
            el("thead", {}, el("tr", {}, head("Task"), head("Status"), head("Age", "number wide"), head("Attempts", "number middle"), head("Arguments", "reason"))),
            this.body),
          el("p", { id: "work-nothing", class: "soft", hidden: true }),
          el("p", { class: "tools" }, this.more)),
        this.makeForm()),
      el("aside", { id: "work-detail", hidden: true, "aria-labelledby": "work-detail-title" }));
  }

  makeForm() {
    this.wanted = el("select", { id: "submit-task", onchange: () => this.showParameters() });
    this.given = el("textarea", { id: "submit-arguments", rows: "3", spellcheck: "false", autocomplete: "off" });
    this.said = el("span", { id: "submit-result", role: "status" });
    this.send = el("button", { class: "main" }, "Submit");
    this.form = el("section", { "aria-labelledby": "submit-title", hidden: true },
      el("h2", { id: "submit-title" }, "Submit a task"),
      el("form", { onsubmit: (event) => { event.preventDefault(); this.submit(); } },
        el("p", {}, el("label", {}, "Task ", this.wanted)),
        el("p", {}, el("label", {}, "Arguments, as JSON ", this.given)),
        el("p", { class: "tools" }, this.send, this.said)));
    return this.form;
  }

  // Shows the list, and one of them beside it. In a tree without tasks it says so.
  async open(id) {
    this.place.classList.toggle("open", id !== null);
    const before = this.detail.id;
    if (id === null) this.detail.close();
    else this.detail.open(id);
    if (id === null && before !== null) this.rows.focus(this.#cells.get(before)?.row);
    this.mark();
    this.readNow();
    try {
      this.showTasks((await get("/tasks")).tasks);
    } catch (error) {
      setText(byId("work-problem"), error.message);
    }
  }

  showTasks(tasks) {
    this.tasks = tasks;
    for (const [select, first] of [[this.task, 1], [this.wanted, 0]]) {
      const known = [...select.options].slice(first).map((each) => each.value);
      if (known.join("\n") === tasks.map((each) => each.name).join("\n")) continue;
      const chosen = select.value;
      select.replaceChildren(...[...select.options].slice(0, first), ...tasks.map(({ name }) => el("option", { value: name }, name)));
      if (tasks.some(({ name }) => name === chosen)) select.value = chosen;
    }
    this.form.hidden = tasks.length === 0;
    this.showParameters();
    this.showCount();
  }

  showParameters() {
    const task = this.tasks.find(({ name }) => name === this.wanted.value);
    this.given.placeholder = `{${(task?.parameters ?? []).map((each) => `${JSON.stringify(each)}: …`).join(", ")}}`;
  }

  async submit() {
    let given;
    try {
      given = JSON.parse(this.given.value.trim() || "{}");
    } catch (error) {
      setText(this.said, `The arguments are no JSON: ${error.message}`);
      return;
    }
    const made = await act("submit", () => post(`/tasks/${encodeURIComponent(this.wanted.value)}`, { arguments: given }), {
      askForToken: this.askForToken,
      tell: (text) => setText(this.said, text),
      setBusy: (busy) => { this.send.disabled = busy; },
    });
    if (made) location.hash = addressOf(made.invocation_id);
  }

  get looked() {
    return !this.place.hidden && document.visibilityState === "visible" && this.tree.connected;
  }

  async run() {
    for (;;) {
      this.#wake = new AbortController();
      const { signal } = this.#wake;
      if (this.looked) {
        this.#stale = false;
        await this.read();
      }
      await pause(LEAST_MS);
      await pause(this.#stale && this.looked ? 0 : EVERY_MS - LEAST_MS, signal);
    }
  }

  readNow() {
    this.#counted = 0;
    this.#wake.abort();
  }

  // Something has happened to invocations, or a lost connection has come back.
  hear() {
    this.#connected = this.tree.connected;
    this.#stale = true;
    if (this.looked) this.#wake.abort();
  }

  narrow() {
    this.#all = [];
    this.#grown = false;
    for (const [each, chip] of this.#chips) chip.setAttribute("aria-pressed", String(each === this.status));
    this.readNow();
  }

  get query() {
    const asked = new URLSearchParams({ limit: PAGE });
    if (this.status !== null) asked.set("status", this.status);
    if (this.task.value) asked.set("task", this.task.value);
    return asked.toString();
  }

  async read() {
    const { query } = this;
    const counting = Date.now() - this.#counted > COUNT_EVERY_MS;
    try {
      const page = await get(`/invocations?${query}${counting ? "&counts=true" : ""}`);
      if (counting) {
        this.#counted = Date.now();
        this.showCounts(page.counts);
      }
      if (query !== this.query) return;
      this.take(page);
      setText(byId("work-problem"), "");
    } catch (error) {
      setText(byId("work-problem"), error.message);
    }
    await this.detail.read();
  }

  // What was asked for beyond the first page stays as it was then; unless so many have come that this would
  // leave a gap.
  take({ invocations, next }) {
    const last = this.#grown ? this.#all.findIndex((each) => each.invocation_id === invocations.at(-1)?.invocation_id) : -1;
    const older = last < 0 ? [] : this.#all.slice(last + 1);
    this.#grown = older.length > 0;
    this.#all = [...invocations, ...older];
    if (!this.#grown) this.#next = next;
    this.show();
  }

  async readMore() {
    const { query } = this, after = this.#next;
    try {
      const page = await get(`/invocations?${query}&after=${encodeURIComponent(after)}`);
      if (query !== this.query || after !== this.#next) return;
      this.#all.push(...page.invocations);
      this.#next = page.next;
      this.#grown = true;
      this.show();
    } catch (error) {
      setText(byId("work-problem"), error.message);
    }
  }

  show() {
    const wanted = new Set(this.#all.map((each) => each.invocation_id));
    for (const [id, { row }] of this.#cells) {
      if (wanted.has(id)) continue;
      row.remove();
      this.#cells.delete(id);
    }
    for (const each of this.#all) this.fill(this.#cells.get(each.invocation_id) ?? this.makeRow(each), each);
    this.rows.order(this.#all.map((each) => this.#cells.get(each.invocation_id).row));
    this.rows.roveSomewhere();
    this.more.hidden = this.#next === null;
    this.mark();
    this.showCount();
  }

  makeRow({ invocation_id: id, task, arguments: given, arguments_cut: cut }) {
    const button = el("button", { type: "button", class: "unit", tabindex: "-1", "aria-controls": "work-detail", "aria-expanded": "false" }, task);
    const status = el("span", { class: "badge" }), age = el("td", { class: "number wide" }), attempts = el("td", { class: "number middle" });
    const text = cut ? given : JSON.stringify(given);
    const row = el("tr", { "data-name": id }, el("th", { scope: "row", class: "name" }, button), el("td", {}, status), age, attempts,
      el("td", { class: "reason" }, text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)}…` : text));
    const cells = { row, button, status, age, attempts };
    this.#cells.set(id, cells);
    return cells;
  }

  fill(cells, each) {
    setText(cells.status, words(each.status));
    setClass(cells.status, `badge ${lookOf(each.status)}`);
    setText(cells.age, duration(since(each.timestamps.created_at)));
    setText(cells.attempts, each.attempts ? String(each.attempts) : "");
  }

  mark() {
    for (const [id, { row, button }] of this.#cells) {
      const chosen = id === this.detail.id;
      setClass(row, chosen ? "chosen" : "");
      button.setAttribute("aria-expanded", String(chosen));
    }
  }

  showCount() {
    setText(byId("work-count"), this.#all.length ? `${this.#all.length}${this.#next === null ? "" : " newest"}` : "");
    const narrowed = this.status !== null || this.task.value !== "";
    byId("work-nothing").hidden = this.#all.length > 0;
    setText(byId("work-nothing"), narrowed ? "No invocation is like that." : this.tasks?.length === 0 ? "This tree has no tasks." : "No task has been submitted yet.");
  }

  showCounts(counts) {
    for (const [status, chip] of this.#chips) {
      setText(chip, `${counts[status] ?? 0} ${words(status)}`);
      chip.hidden = !counts[status] && this.status !== status;
    }
  }
}
