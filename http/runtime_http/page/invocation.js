// One invocation: how it stands, what it was given, what came of it, and what happened to it on the way.

import { act, get, getWhole, post } from "./api.js";
import { clock, el, setClass, setRows, setText } from "./dom.js";

// The colour of each status; those that are looked at first stand first.
const LOOKS = {
  running: "starting", resumed: "starting", pending: "starting", registered: "waiting", rerouted: "waiting", paused: "waiting",
  concurrency_controlled: "waiting", retry: "backoff", pending_recovery: "backoff", running_recovery: "backoff",
  failed: "failed", killed: "idle", concurrency_controlled_final: "idle", success: "ready",
};
export const STATUSES = Object.keys(LOOKS);
const OVER = new Set(["failed", "killed", "concurrency_controlled_final", "success"]);
const RETRIED = new Set(["failed", "killed"]);
const MOST_CHILDREN = 50;
// A text of megabytes would hold up the whole page.
const MOST_CHARACTERS = 50_000;
const KEPT_MS = 60_000; // what is saved may be read for so long

export const lookOf = (status) => `stage-${LOOKS[status] ?? "waiting"}`;
export const words = (status) => status.replaceAll("_", " ");
export const addressOf = (id) => `#/invocations/${encodeURIComponent(id)}`;

const pathOf = (id) => `/invocations/${encodeURIComponent(id)}`;

export class Invocation {
  constructor(panel, { tree, askForToken, onChange }) {
    this.panel = panel;
    this.tree = tree;
    this.askForToken = askForToken;
    this.onChange = onChange;
    this.id = null;
    this.busy = false;
    this.make();
  }

  make() {
    this.title = el("span", { id: "work-detail-title" });
    this.badge = el("span", { class: "badge", id: "work-status" });
    this.said = el("span", { id: "work-result", role: "status" });
    this.buttons = ["cancel", "retry"].map((verb) => el("button", { type: "button", "data-verb": verb, disabled: true, onclick: () => this.act(verb) }, verb));
    this.facts = el("dl");
    const part = (title, id, kind) => {
      const shown = el(kind, { id });
      const cut = el("p", { class: "soft", id: `${id}-cut`, hidden: true });
      const box = el("div", { hidden: true }, el("h3", {}, title), cut, shown);
      return { box, shown, cut };
    };
    this.given = part("Arguments", "work-arguments", "pre");
    this.result = part("Result", "work-outcome", "pre");
    this.error = part("Error", "work-error", "pre");
    this.history = part("History", "work-history", "ol");
    this.family = part("Related", "work-family", "ol");
    this.panel.append(
      el("div", { class: "head" }, el("h2", {}, this.title, " ", this.badge),
        el("button", { type: "button", "aria-label": "Close (Escape)", onclick: () => { location.hash = "#/invocations"; } }, "✕")),
      el("div", { class: "tools" }, el("div", { class: "tools", role: "group", "aria-label": "What can be done with it" }, ...this.buttons), this.said),
      this.facts, ...this.parts.map(({ box }) => box));
  }

  get parts() {
    return [this.error, this.result, this.given, this.history, this.family];
  }

  open(id) {
    if (this.id === id) return;
    this.id = id;
    this.seen = this.stands = null;
    setText(this.title, id);
    setText(this.badge, "…");
    setClass(this.badge, "badge");
    setText(this.said, "");
    setRows(this.facts, []);
    for (const { box } of this.parts) box.hidden = true;
    this.panel.hidden = false;
    this.panel.scrollTop = 0;
    this.showButtons();
  }

  close() {
    this.id = null;
    this.panel.hidden = true;
  }

  async read() {
    const { id } = this;
    if (id === null) return;
    try {
      const [stands, children] = await Promise.all([get(pathOf(id)), get(`/invocations?parent=${encodeURIComponent(id)}&limit=${MOST_CHILDREN}`)]);
      const mark = `${stands.status} ${stands.timestamps.changed_at} ${stands.attempts}`;
      const changed = this.seen !== mark;
      const [lines, outcome] = changed ? await Promise.all([get(`${pathOf(id)}/history`), get(`${pathOf(id)}/result`)]) : [];
      if (this.id !== id) return;
      this.stands = stands;
      this.showFacts(stands);
      this.showFamily(stands, children);
      if (changed) {
        this.showOutcome(outcome, `${pathOf(id)}/result`);
        this.showHistory(lines);
        this.seen = mark;
      }
    } catch (error) {
      if (this.id === id) setText(this.said, error.message);
    }
    this.showButtons();
  }

  showFacts(stands) {
    setText(this.title, stands.task);
    setText(this.badge, words(stands.status));
    setClass(this.badge, `badge ${lookOf(stands.status)}`);
    const { created_at: created, changed_at: changed, due_at: due } = stands.timestamps;
    const time = (text) => text && new Date(text).toLocaleString();
    setRows(this.facts, [
      ["id", stands.invocation_id],
      ["cancel", stands.cancel_requested && !OVER.has(stands.status) ? "its runner is to cancel it" : ""],
      ["runner", stands.runner_id],
      ["attempts", String(stands.attempts)],
      ["submitted", time(created)],
      [`${words(stands.status)} since`, time(changed)],
      ["not before", OVER.has(stands.status) ? "" : time(due)],
      ["queue", stands.queue],
      ["priority", stands.priority || ""],
      ["workflow", stands.workflow],
    ]);
    this.fill(this.given, Object.keys(stands.arguments ?? {}).length ? JSON.stringify(stands.arguments, null, 2) : "", pathOf(stands.invocation_id));
  }

  // What is too long for a page is cut; all of it, which is at `path`, can be saved. (A link would not have the token.)
  fill({ box, shown, cut }, text, path) {
    const long = text.length > MOST_CHARACTERS;
    setText(shown, long ? text.slice(0, MOST_CHARACTERS).replace(/[\ud800-\udbff]$/, "") : text);
    box.hidden = text === "";
    cut.hidden = !long;
    if (!long) return;
    const words = `The first ${MOST_CHARACTERS.toLocaleString("en")} of ${text.length.toLocaleString("en")} characters; all of it: `;
    if (cut.dataset.mark === words + path) return; // a button that has the focus is to keep it
    cut.dataset.mark = words + path;
    cut.replaceChildren(words, el("button", { type: "button", onclick: () => this.save(path) }, "Save"), ` (GET ${path})`);
  }

  async save(path) {
    const whole = await this.ask("save", () => getWhole(path));
    if (!whole) return;
    const href = URL.createObjectURL(whole);
    el("a", { href, download: `${path.slice(1).replaceAll("/", "-")}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(href), KEPT_MS);
  }

  showOutcome({ status, result, error }, path) {
    this.fill(this.result, status === "success" ? JSON.stringify(result ?? null, null, 2) : "", path);
    this.fill(this.error, error ? `${error.type}: ${error.message}${error.traceback ? `\n\n${error.traceback}` : ""}` : "", path);
  }

  showHistory(lines) {
    let before = null;
    this.history.shown.replaceChildren(...lines.map((line) => {
      const at = new Date(line.timestamp);
      const later = before === null ? "" : ` +${((at - before) / 1000).toFixed(3)} s`;
      before = at;
      return el("li", {}, clock(line.timestamp), el("span", { class: "move" }, later), " ",
        line.status === null ? null : el("span", { class: `badge ${lookOf(line.status)}` }, words(line.status)),
        line.runner_id ? ` ${line.runner_id}` : "", describe(line.context));
    }));
    this.history.box.hidden = lines.length === 0;
  }

  showFamily(stands, { invocations, next }) {
    const link = (kind, id, more = "") => [kind, id, more];
    const all = [
      ...(stands.parent ? [link("submitted by", stands.parent)] : []),
      ...(stands.retry_of ? [link("tries again", stands.retry_of)] : []),
      ...invocations.map((each) => link("has submitted", each.invocation_id, `${each.task}, ${words(each.status)}`)),
    ];
    const mark = JSON.stringify([all, next]);
    this.family.box.hidden = all.length === 0;
    if (this.family.shown.dataset.mark === mark) return;
    this.family.shown.dataset.mark = mark;
    this.family.shown.replaceChildren(
      ...all.map(([kind, id, more]) => el("li", {}, `${kind} `, el("a", { href: addressOf(id) }, more || id))),
      ...(next === null ? [] : [el("li", { class: "soft" }, "and older ones")]));
  }

  showButtons() {
    const status = this.stands?.status ?? null;
    const can = {
      cancel: status !== null && !OVER.has(status) && !this.stands.cancel_requested,
      retry: RETRIED.has(status),
    };
    for (const button of this.buttons) {
      const disabled = this.busy || !this.tree.connected || !can[button.dataset.verb];
      if (button.disabled !== disabled) button.disabled = disabled;
    }
  }

  ask(verb, work) {
    const { id } = this;
    return act(verb, work, {
      askForToken: this.askForToken,
      tell: (text) => { if (this.id === id) setText(this.said, text); },
      setBusy: (busy) => {
        this.busy = busy;
        this.showButtons();
      },
    });
  }

  async act(verb) {
    const { id } = this;
    const answer = await this.ask(verb, () => post(`${pathOf(id)}/${verb}`));
    if (answer && answer.invocation_id !== id && this.id === id) location.hash = addressOf(answer.invocation_id);
    else this.onChange();
  }
}

function describe(context) {
  if (context === null || context === undefined) return "";
  const text = typeof context !== "object" ? String(context)
    : Object.entries(context).map(([key, value]) => `${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
  return text && `: ${text}`;
}
