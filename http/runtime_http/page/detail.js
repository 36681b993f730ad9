// What is to be known of one unit, and what can be done with it.

import { act, get, pathOf, post } from "./api.js";
import { byId, clock, duration, el, list, setClass, setRows, setText, since, until } from "./dom.js";
import { Logs } from "./logs.js";
import { look, QUIET } from "./stages.js";
import { showUse } from "./use.js";

const PLURAL = { process: "processes", service: "services" };
const VERBS = ["start", "stop", "restart"];
// The stages at which a verb has nothing to do.
const IDLE_VERBS = {
  start: new Set(["ready", "starting", "waiting"]),
  stop: new Set(["idle", "completed", "failed", "stopping"]),
  restart: new Set(),
};

export class Detail {
  constructor(tree, { askForToken, onChoose, onClose }) {
    this.tree = tree;
    this.askForToken = askForToken;
    this.onChoose = onChoose;
    this.name = null;
    this.tab = "about";
    this.picked = false; // whether a person has chosen the tab
    this.leaving = null;
    this.busy = null;
    byId("close").addEventListener("click", onClose);
  }

  open(name) {
    if (this.name === name) return;
    this.name = name;
    this.busy = null;
    setText(byId("action-result"), "");
    this.makeActions();
    this.makeTabs();
    const wanted = this.picked ? this.tab : QUIET.has(look(this.unit)) ? "about" : "why";
    byId("detail").hidden = false;
    this.choose(this.tabs.includes(wanted) ? wanted : "about");
    this.update();
  }

  close() {
    this.leaving?.abort();
    this.name = null;
    byId("detail").hidden = true;
  }

  get unit() {
    return this.tree.units.get(this.name);
  }

  update() {
    const unit = this.unit;
    if (!unit) return;
    setText(byId("detail-title"), unit.name);
    setText(byId("detail-state"), look(unit));
    setClass(byId("detail-state"), `badge stage-${look(unit)}`);
    setText(byId("detail-reason"), unit.reason);
    for (const button of byId("actions").children) {
      const { verb } = button.dataset;
      const disabled = this.busy !== null || !this.tree.connected || IDLE_VERBS[verb].has(unit.stage);
      if (button.disabled !== disabled) button.disabled = disabled;
    }
    this.refresh?.();
  }

  makeActions() {
    const { kind } = this.unit;
    byId("actions").replaceChildren(...(kind in PLURAL ? VERBS : []).map((verb) =>
      el("button", { type: "button", "data-verb": verb, onclick: () => this.act(verb) }, verb)));
  }

  act(verb) {
    const { kind, name } = this.unit;
    return act(verb, () => post(`/${PLURAL[kind]}/${pathOf(name)}/${verb}`), {
      askForToken: this.askForToken,
      tell: (words) => { if (this.name === name) setText(byId("action-result"), words); },
      setBusy: (busy) => {
        this.busy = busy ? verb : null;
        this.update();
      },
    });
  }

  get tabs() {
    const more = { process: ["logs", "use"], service: ["configuration"] };
    return ["about", "why", ...(more[this.unit.kind] ?? [])];
  }

  makeTabs() {
    byId("tabs").replaceChildren(...this.tabs.map((tab) => el("button", {
      type: "button", role: "tab", id: `tab-${tab}`, "aria-controls": "tab-panel",
      onclick: () => this.pick(tab),
      onkeydown: (event) => this.onTabKey(event, tab),
    }, tab)));
  }

  onTabKey(event, tab) {
    const { tabs } = this;
    const at = tabs.indexOf(tab);
    const next = { ArrowRight: tabs[at + 1] ?? tabs[0], ArrowLeft: tabs.at(at - 1), Home: tabs[0], End: tabs.at(-1) }[event.key];
    if (!next) return;
    event.preventDefault();
    this.pick(next);
    byId(`tab-${next}`).focus();
  }

  pick(tab) {
    this.picked = true;
    this.choose(tab);
  }

  choose(tab) {
    this.tab = tab;
    this.leaving?.abort();
    this.leaving = new AbortController();
    for (const button of byId("tabs").children) {
      const selected = button.id === `tab-${tab}`;
      button.setAttribute("aria-selected", String(selected));
      button.tabIndex = selected ? 0 : -1;
    }
    const panel = byId("tab-panel");
    panel.replaceChildren();
    panel.setAttribute("aria-labelledby", `tab-${tab}`);
    this.refresh = null;
    const { signal } = this.leaving;
    if (tab === "about") this.showAbout(panel);
    else if (tab === "why") this.showWhy(panel, signal);
    else if (tab === "logs") new Logs(panel, this.name, signal);
    else if (tab === "use") showUse(panel, this.name, signal);
    else this.showConfiguration(panel, signal);
    this.refresh?.();
  }

  showAbout(panel) {
    const rows = el("dl");
    panel.append(rows);
    this.refresh = () => {
      const { unit } = this;
      const dependents = [...this.tree.units.values()]
        .filter((each) => each.requirements.some((need) => need.name === unit.name))
        .map((each) => each.name);
      setRows(rows, [
        ["says", unit.status_text],
        ["error", unit.error],
        ["note", unit.note],
        ["stopping", describeStop(unit)],
        ["next restart", unit.next_restart_at && `in ${duration(until(unit.next_restart_at))}`],
        ["waits for", list(unit.waiting_for, 20)],
        ["healthy", unit.healthy === null ? "" : unit.healthy ? "yes" : "no"],
        ["kind", unit.kind],
        ["state", unit.state],
        ["pid", unit.pid],
        ["restarts", unit.restarts || ""],
        ["started", unit.started_at && `${new Date(unit.started_at).toLocaleString()} (${duration(since(unit.started_at))} ago)`],
        ["ready after", unit.ready_after_sec === null ? "" : `${unit.ready_after_sec.toFixed(2)} s`],
        ["ran for", unit.ran_sec === null || unit.ready ? "" : duration(unit.ran_sec)],
        ["generation", unit.generation],
        ["needs", unit.requirements.map((each) => (each.condition === "ready" ? each.name : `${each.name} (${each.condition.replaceAll("_", " ")})`)).join(", ")],
        ["needed by", list(dependents, 20)],
      ]);
    };
  }

  showWhy(panel, signal) {
    const chain = el("ol", { class: "why" });
    panel.append(el("p", { class: "soft" }, "What happened last, and below it what led to it:"), chain);
    let seen = null;
    this.refresh = async () => {
      const mark = `${this.unit.generation} ${this.unit.state} ${this.unit.stage} ${this.unit.reason}`;
      if (mark === seen) return;
      seen = mark;
      try {
        const why = await get(`/why/${pathOf(this.name)}`, signal);
        chain.replaceChildren(...why.events.map((event) => el("li", {}, ...describeEvent(event, this.onChoose))));
      } catch (error) {
        seen = null;
        if (!signal.aborted) chain.replaceChildren(el("li", {}, error.message));
      }
    };
  }

  showConfiguration(panel, signal) {
    const words = el("p"), shown = el("pre", { id: "configuration" });
    panel.append(words, shown);
    let seen = null;
    this.refresh = async () => {
      const mark = `${this.unit.generation} ${this.unit.state}`;
      if (seen === mark) return;
      seen = mark;
      try {
        const status = await get(`/services/${pathOf(this.name)}`, signal);
        setText(words, status.error ?? (status.is_configured ? "" : "It has not been configured."));
        setText(shown, Object.keys(status.metadata).length ? JSON.stringify(status.metadata, null, 2) : "");
      } catch (error) {
        seen = null;
        if (!signal.aborted) setText(words, error.message);
      }
    };
  }
}

export function describeStop(unit) {
  if (!unit.stop) return "";
  const left = `${duration(until(unit.stop.ends))} left of ${duration(unit.stop.of_sec)}`;
  return unit.stop.waits_for ? `waits for ${unit.stop.waits_for}, ${left}` : left;
}

export function describeEvent(event, onChoose) {
  if (event.kind === "invocation") {
    const { invocation_id: id } = event.invocation;
    return [clock(event.timestamp), " ", ...(id ? [el("a", { href: `#/invocations/${encodeURIComponent(id)}` }, "invocation"), " "] : []), event.reason];
  }
  const who = event.unit
    ? el("button", { type: "button", class: "unit", onclick: () => onChoose(event.unit) }, event.unit)
    : el("strong", {}, "the tree");
  return [clock(event.timestamp), " ", who, " ", event.new ? el("span", { class: "move" }, `${event.old} → ${event.new}`) : null, event.new ? ": " : "", event.reason];
}
