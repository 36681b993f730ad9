// What a process prints: followed live, filtered, searched.

import { follow, pathOf, pause } from "./api.js";
import { byId, clock, el, setText } from "./dom.js";

const MOST_LINES = 5000, FIRST_LINES = 500, AGAIN_MS = 2000;
// Colours and other commands for a terminal.
const COMMANDS = /\u001b(?:\[[0-9;?]*[ -\/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;

export class Logs {
  constructor(panel, name, signal) {
    this.name = name;
    this.signal = signal;
    this.all = [];
    this.waiting = [];
    this.at = -1;
    this.filter = el("input", { type: "search", id: "log-filter", placeholder: "only lines with", "aria-label": "Filter the lines", autocomplete: "off", spellcheck: "false", oninput: () => this.redraw() });
    this.search = el("input", { type: "search", id: "log-search", placeholder: "find", "aria-label": "Find in the lines; Enter goes to the next, Shift and Enter to the previous", autocomplete: "off", spellcheck: "false", oninput: () => this.find(), onkeydown: (event) => this.onSearchKey(event) });
    this.found = el("span", { id: "log-found", role: "status" });
    this.stream = el("select", { id: "log-stream", "aria-label": "Stream", onchange: () => this.redraw() },
      el("option", { value: "" }, "both streams"), el("option", { value: "stdout" }, "stdout"), el("option", { value: "stderr" }, "stderr"));
    this.stick = el("input", { type: "checkbox", checked: true, id: "log-follow", onchange: () => this.toEnd() });
    this.lines = el("div", { class: "lines", id: "log-lines", role: "log", "aria-live": "off", "aria-label": `Output of ${name}`, tabindex: "0", onscroll: () => this.onScroll() });
    this.state = el("p", { class: "soft", id: "log-state", role: "status" });
    panel.append(el("div", { class: "tools" }, this.filter, this.stream,
      el("label", { class: "check" }, this.stick, " follow"), this.search, this.found), this.lines, this.state);
    this.run();
  }

  async run() {
    while (!this.signal.aborted) {
      setText(this.state, "");
      let words = "the stream has ended";
      try {
        await follow(`/processes/${pathOf(this.name)}/logs?follow=1&lines=${FIRST_LINES}`, (kind, data) => this.take(kind, data), {
          signal: this.signal,
          onOpen: () => { this.all = []; this.redraw(); },
        });
      } catch (error) {
        words = error.message;
      }
      if (this.signal.aborted) return;
      setText(this.state, `Not live: ${words}`);
      await pause(AGAIN_MS, this.signal);
    }
  }

  take(kind, data) {
    const line = kind === "line"
      ? { ...data, text: data.text.replaceAll(COMMANDS, "") }
      : { stream: "missed", text: `(${data.lines} lines came too fast to be shown)`, timestamp: Date.now() / 1000 };
    this.all.push(line);
    if (this.all.length > MOST_LINES) this.all.shift();
    if (!this.waiting.length) requestAnimationFrame(() => this.flush());
    this.waiting.push(line);
    // Nothing is drawn while nobody sees the page.
    if (this.waiting.length > 2 * MOST_LINES) this.waiting = this.waiting.slice(-MOST_LINES);
  }

  matches(line) {
    if (line.stream === "missed") return true;
    if (this.stream.value && line.stream !== this.stream.value) return false;
    return line.text.toLowerCase().includes(this.filter.value.toLowerCase());
  }

  render(line) {
    const text = el("span", { class: "text" }, ...this.mark(line.text));
    return el("div", { class: `line ${line.stream}` }, clock(line.timestamp), " ", text);
  }

  mark(text) {
    const words = (this.search.value || this.filter.value).toLowerCase();
    if (!words) return [text];
    const parts = [];
    const low = text.toLowerCase();
    let from = 0;
    for (let at = low.indexOf(words); at >= 0; at = low.indexOf(words, from)) {
      parts.push(text.slice(from, at), el("mark", {}, text.slice(at, at + words.length)));
      from = at + words.length;
    }
    return [...parts, text.slice(from)];
  }

  flush() {
    const waiting = this.waiting.slice(-MOST_LINES);
    this.waiting = [];
    this.lines.append(...waiting.filter((line) => this.matches(line)).map((line) => this.render(line)));
    while (this.lines.childElementCount > MOST_LINES) this.lines.firstElementChild.remove();
    this.toEnd();
    if (this.search.value) this.count();
  }

  redraw() {
    this.waiting = [];
    this.lines.replaceChildren(...this.all.filter((line) => this.matches(line)).map((line) => this.render(line)));
    this.toEnd();
    if (this.search.value) this.count();
  }

  // Whoever scrolls back reads: nothing moves then. At the end it follows again.
  onScroll() {
    const end = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 30;
    if (this.moving) this.moving = false;
    else this.stick.checked = end;
  }

  toEnd() {
    if (!this.stick.checked) return;
    const before = this.lines.scrollTop;
    this.lines.scrollTop = this.lines.scrollHeight;
    this.moving = this.lines.scrollTop !== before;
  }

  find() {
    this.at = -1;
    this.redraw();
    if (this.search.value) this.go(-1);
    else setText(this.found, "");
  }

  onSearchKey(event) {
    if (event.key !== "Enter") return;
    event.preventDefault();
    this.go(event.shiftKey ? -1 : 1);
  }

  go(step) {
    const marks = [...this.lines.querySelectorAll("mark")];
    byId("log-here")?.removeAttribute("id");
    if (marks.length) {
      this.at = this.at < 0 ? marks.length - 1 : (this.at + step + marks.length) % marks.length;
      this.stick.checked = false;
      marks[this.at].id = "log-here";
      marks[this.at].scrollIntoView({ block: "nearest" });
    }
    this.count();
  }

  count() {
    const marks = this.lines.querySelectorAll("mark").length;
    setText(this.found, marks ? `${this.at < 0 ? "" : `${this.at + 1} of `}${marks}` : "not found");
  }
}
