// Puts the page together.

import { get, hasToken, useToken } from "./api.js";
import { Detail, describeEvent, describeStop } from "./detail.js";
import { byId, clock, duration, el, list, setClass, setText, until } from "./dom.js";
import { Graph } from "./graph.js";
import { findTrouble, inTrouble, look, LOOKS, MARKS } from "./stages.js";
import { Table } from "./table.js";
import { Tree } from "./tree.js";

const MOST_TROUBLES = 8, MOST_EVENTS = 40;
const tree = new Tree();
let chosen = null;

const graph = new Graph(byId("graph"), choose);
const table = new Table(byId("units"), choose);
const detail = new Detail(tree, { askForToken, onChoose: choose, onClose: () => choose(null) });

function choose(name) {
  if (name !== null && !tree.units.has(name)) return;
  const before = chosen;
  chosen = name;
  byId("main").classList.toggle("open", name !== null);
  if (name === null) {
    detail.close();
    table.focus(table.rows.get(before)?.row);
  } else {
    detail.open(name);
  }
  if (!byId("main").hidden) note(name, before);
  render();
}

// Notes in the address what is shown. To go back closes a unit: on a telephone it covers all else.
function note(name, before) {
  const address = `${location.pathname}${name === null ? "" : `#${encodeURIComponent(name)}`}`;
  if (name !== null && before === null && !location.hash) history.pushState({ opened: true }, "", address);
  else if (name === null && history.state?.opened) history.back();
  else history.replaceState(history.state, "", address);
}

// The address says what is shown: "#NAME" a unit, "#/invocations" their list, "#/invocations/ID" one of them.
// (No unit's name begins with a slash.)
let work = null;
function go() {
  const at = /^#\/invocations(?:\/(.+))?$/.exec(location.hash);
  byId("main").hidden = at !== null;
  byId("work").hidden = at === null;
  byId(at === null ? "units-link" : "work-link").setAttribute("aria-current", "page");
  byId(at === null ? "work-link" : "units-link").removeAttribute("aria-current");
  if (at !== null) {
    byId("units-link").hidden = byId("work-link").hidden = false;
    return openWork(at[1] ? decode(at[1]) : null);
  }
  const name = decode(location.hash.slice(1));
  if (tree.heard !== null && (name === "" || tree.units.has(name))) choose(name || null);
}

async function openWork(id) {
  work ??= import("./invocations.js").then(({ Invocations }) => new Invocations(byId("work"), { tree, askForToken }));
  (await work).open(id);
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Most trees have no tasks; nothing of them is in the way there.
async function lookForTasks() {
  try {
    const { tasks } = await get("/tasks");
    byId("units-link").hidden = byId("work-link").hidden = tasks.length === 0 && byId("work").hidden;
  } catch {
    // the link says so already
  }
}

let due = false;
function schedule() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    render();
  });
}

function render() {
  if (tree.heard === null) return;
  if (chosen !== null && !tree.units.has(chosen)) return choose(null);
  showState();
  showCounts();
  if (byId("main").hidden) return;
  showTrouble();
  showEvents();
  graph.update(tree.units, chosen, (unit) => table.matches(unit));
  const shown = table.update(tree.units, tree.stats, chosen);
  setText(byId("count"), shown === tree.units.size ? String(shown) : `${shown} of ${tree.units.size}`);
  byId("nothing").hidden = shown > 0;
  if (chosen !== null) detail.update();
}

function showState() {
  setText(byId("state"), tree.state);
  setClass(byId("state"), `badge stage-${{ running: "ready", error: "failed", stopped: "idle" }[tree.state] ?? tree.state}`);
  setText(byId("version"), tree.version && tree.version !== "0" ? tree.version : "");
  const bad = [...tree.units.values()].filter(inTrouble).length;
  const mark = tree.connected ? (bad ? `(${bad}) ⚠ ` : "") : "✕ ";
  const title = `${mark}${tree.state} · trio-runtime`;
  if (document.title !== title) document.title = title;
  const left = tree.stopEnds ? `, ${duration(until(tree.stopEnds))} left` : "";
  byId("stopping").hidden = !tree.stopping;
  setText(byId("stopping"), tree.stopping ? `The tree stops (${tree.stopping})${left}.` : "");
}

// How many units look how; a button shows these alone.
const counts = new Map(LOOKS.map((each) => {
  const words = el("span");
  const button = el("button", {
    type: "button", class: `chip stage-${each}`, "data-look": each, "aria-pressed": "false", hidden: true,
    onclick: () => { table.stage = table.stage === each ? null : each; showUnits(); },
  }, el("span", { "aria-hidden": "true" }, MARKS[each]), " ", words);
  byId("counts").append(button);
  return [each, { button, words }];
}));

function showUnits() {
  if (byId("main").hidden) location.hash = "";
  schedule();
}

function showCounts() {
  const found = {};
  for (const unit of tree.units.values()) found[look(unit)] = (found[look(unit)] ?? 0) + 1;
  for (const [each, { button, words }] of counts) {
    setText(words, `${found[each] ?? 0} ${each}`);
    const pressed = table.stage === each;
    if (button.hidden !== (!found[each] && !pressed)) button.hidden = !button.hidden;
    if (button.getAttribute("aria-pressed") !== String(pressed)) button.setAttribute("aria-pressed", String(pressed));
  }
}

// The first thing to look at: what is wrong, why, and what it holds up.
const troubles = new Map();
function showTrouble() {
  const found = findTrouble(tree.units);
  const told = found.slice(0, MOST_TROUBLES);
  const bad = found.filter(({ unit }) => inTrouble(unit));
  for (const [name, { row }] of troubles) {
    if (told.some(({ unit }) => unit.name === name)) continue;
    row.remove();
    troubles.delete(name);
  }
  told.forEach(({ unit, holds }, index) => {
    const parts = troubles.get(unit.name) ?? makeTrouble(unit.name);
    setText(parts.state, look(unit));
    setClass(parts.state, `badge stage-${look(unit)}`);
    setText(parts.words, describeTrouble(unit));
    setText(parts.holds, holds.length ? `holds up ${list(holds)}` : "");
    if (byId("trouble").children[index] !== parts.row) byId("trouble").insertBefore(parts.row, byId("trouble").children[index] ?? null);
  });
  setText(byId("trouble-more"), found.length > told.length ? `and ${found.length - told.length} more, in the table below` : "");
  const calm = !bad.length;
  setClass(byId("trouble-section"), calm ? "calm" : "alarm");
  setText(byId("trouble-title"), calm ? describeCalm(found) : bad.length === 1 ? "One thing is wrong" : `${bad.length} things are wrong`);
  setText(byId("said"), bad.map(({ unit }) => `${unit.name} is ${look(unit)}`).slice(0, MOST_TROUBLES).join("; "));
}

function makeTrouble(name) {
  const state = el("span", { class: "badge" }), words = el("span"), holds = el("span", { class: "holds" });
  const row = el("li", { "data-trouble": name },
    el("button", { type: "button", class: "unit", onclick: () => choose(name) }, name), " ", state, " ", words, " ", holds);
  const parts = { row, state, words, holds };
  troubles.set(name, parts);
  return parts;
}

function describeTrouble(unit) {
  const again = unit.next_restart_at ? `next try in ${duration(until(unit.next_restart_at))}` : "";
  const often = unit.restarts ? `restarted ${unit.restarts === 1 ? "once" : `${unit.restarts} times`}` : "";
  const error = unit.error && !unit.reason.includes(unit.error) ? unit.error : "";
  return [unit.reason, error, unit.status_text, again, often].filter(Boolean).join(" · ");
}

function describeCalm(found) {
  if (tree.stopping) return "Stopping";
  if (found.some(({ unit }) => unit.ready)) return "Nothing is wrong at the moment";
  const settled = [...tree.units.values()].every((unit) => !["starting", "waiting", "stopping"].includes(unit.stage));
  return settled ? "All is well" : "Nothing is wrong; not everything is there yet";
}

let lastShown = null;
function showEvents() {
  const newest = tree.events.at(-1)?.number ?? null;
  const mark = `${tree.events[0]?.number} ${newest} ${tree.events.length}`;
  if (mark === lastShown) return;
  lastShown = mark;
  const shown = byId("events");
  const known = new Map([...shown.children].map((each) => [Number(each.dataset.number), each]));
  const wanted = tree.events.slice(-MOST_EVENTS).reverse();
  shown.replaceChildren(...wanted.map((event) => known.get(event.number)
    ?? el("li", { "data-number": event.number }, ...describeEvent(event, choose))));
}

let lost = null;
function onLink(problem, waitMs) {
  const up = problem === null;
  const stopped = tree.stopping !== null || tree.state === "stopped", refused = problem?.status === 401;
  lost = up ? null : { again: waitMs === null ? null : Date.now() + waitMs };
  setText(byId("link"), up ? "live" : refused ? "takes the token" : stopped ? "stopped" : "not connected");
  setClass(byId("link"), `link ${up ? "up" : "down"}`);
  for (const each of document.querySelectorAll("main")) each.classList.toggle("stale", !up);
  if (up) lookForTasks();
  byId("notice").hidden = up;
  if (!up) {
    setText(byId("notice-title"), refused ? "Reading takes the token here, too." : stopped ? "The tree has stopped."
      : tree.heard ? "Connection lost." : "No connection.");
    byId("notice-heard").replaceChildren(...(tree.heard ? ["What you see is as it was at ", clock(tree.heard), ". "] : []), `(${problem.message}) `);
    showRetry();
    if (refused) {
      const why = hasToken() ? "This token was refused." : "Reading takes it here, too.";
      useToken("");
      askForToken(why);
    }
  }
  schedule();
}

function showRetry() {
  if (!lost) return;
  const seconds = Math.ceil(Math.max(0, lost.again - Date.now()) / 1000);
  setText(byId("notice-retry"), lost.again === null ? "" : `Next try in ${seconds} s.`);
}

// Resolves to whether there is a token now.
function askForToken(why = "") {
  const dialog = byId("token-dialog");
  setText(byId("token-why"), why);
  if (!dialog.open) {
    byId("token").value = dialog.returnValue = "";
    dialog.showModal();
  }
  byId("token").focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    if (dialog.returnValue === "save") useToken(byId("token").value);
    else if (dialog.returnValue === "forget") useToken("");
    byId("token").value = "";
    showToken();
    const given = dialog.returnValue === "save" && hasToken();
    if (given && !tree.connected) tree.retryNow();
    resolve(given);
  }, { once: true }));
}

function showToken() {
  setText(byId("token-button"), hasToken() ? "Token ✓" : "Token");
  byId("token-forget").hidden = !hasToken();
}

function isDark() {
  const given = document.documentElement.dataset.theme;
  return given ? given === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

byId("token-button").addEventListener("click", () => askForToken());
byId("token-cancel").addEventListener("click", () => byId("token-dialog").close(""));
byId("zoom-in").addEventListener("click", () => graph.scale(1.25));
byId("zoom-out").addEventListener("click", () => graph.scale(0.8));
byId("retry").addEventListener("click", () => tree.retryNow());
byId("filter").addEventListener("input", (event) => { table.words = event.target.value; schedule(); });
byId("show").addEventListener("change", (event) => { table.show = event.target.value; schedule(); });
byId("units").addEventListener("sorted", schedule);
byId("filter").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "Enter") {
    event.preventDefault();
    table.focus(table.visible()[0]);
  }
});
byId("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
});
document.addEventListener("keydown", (event) => {
  if (byId("token-dialog").open || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape" && event.target.matches("input")) leaveField(event);
  } else if (!byId("work").hidden) {
    if (event.key === "Escape" && location.hash !== "#/invocations") location.hash = "#/invocations";
  } else if (event.key === "/") {
    byId("filter").focus();
    byId("filter").select();
    event.preventDefault();
  } else if (event.key === "Escape" && chosen !== null) {
    choose(null);
  }
});

// The first Escape empties a field, the next one leaves it.
function leaveField(event) {
  if (event.target.value) return;
  event.target.blur();
  if (event.target.closest("#detail")) byId("tab-panel").focus();
  else table.focus(table.visible()[0]);
}

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
showToken();
tree.addEventListener("change", schedule);
setInterval(() => { showRetry(); schedule(); }, 1000); // times go on without events
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  if (byId("work").hidden) table.focus(table.visible()[0]);
  else byId("work-title")?.focus();
});
window.addEventListener("hashchange", go);
if (location.hash.startsWith("#/")) go();
else if (location.hash) tree.addEventListener("change", go, { once: true });
tree.run(onLink);
tree.watchStats(2000);
tree.watchStops(1000);
