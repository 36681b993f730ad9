// How a unit looks to a person: one word, and how bad that is.

// The worst first.
export const LOOKS = [
  "failed", "unhealthy", "held", "backoff", "stopping", "starting", "waiting", "ready", "completed", "idle",
];
export const TROUBLE = new Set(["failed", "unhealthy", "held", "backoff"]);
// What nobody needs to look at.
export const QUIET = new Set(["ready", "completed", "idle"]);
// Beside the colour, for those who cannot tell colours apart.
export const MARKS = {
  failed: "✕", unhealthy: "!", held: "⊘", backoff: "↻", stopping: "▾", starting: "…", waiting: "○",
  ready: "●", completed: "✓", idle: "–",
};

// For so long a unit that has been restarted is worth a look.
const SHAKY_MS = 60_000;

export function look(unit) {
  return unit.healthy === false && unit.stage === "ready" ? "unhealthy" : unit.stage;
}

export function inTrouble(unit) {
  return TROUBLE.has(look(unit));
}

export function badness(unit) {
  const place = LOOKS.indexOf(look(unit));
  return place < 0 ? LOOKS.length : place;
}

// What is wrong, the worst first: each with the names of the units that wait for it, also by way of others.
// Units that hold up others while they start, and those that have just been restarted, stand behind.
// A unit that only waits for one that is wrong itself is told there.
export function findTrouble(units) {
  const blocked = new Map();
  for (const unit of units.values()) {
    for (const name of blockers(unit, units)) {
      if (!blocked.has(name)) blocked.set(name, []);
      blocked.get(name).push(unit.name);
    }
  }
  const found = [];
  for (const unit of units.values()) {
    const holds = reach(unit.name, (name) => blocked.get(name) ?? []);
    const pending = unit.stage === "starting" && holds.length > 0;
    const shaky = unit.ready && unit.restarts > 0 && Date.now() - new Date(unit.started_at) < SHAKY_MS;
    const told = unit.stage === "held" && blockers(unit, units).length > 0;
    if (pending || shaky || (inTrouble(unit) && !told)) found.push({ unit, holds });
  }
  return found.sort((a, b) => badness(a.unit) - badness(b.unit) || b.holds.length - a.holds.length);
}

function blockers(unit, units) {
  if (unit.stage !== "waiting" && unit.stage !== "held") return [];
  return unit.requirements.map((each) => each.name).filter((name) => {
    const stage = units.get(name)?.stage;
    return unit.waiting_for.includes(name) || (unit.stage === "held" && (stage === "failed" || stage === "held"));
  });
}

// All that can be reached from a name, itself left out.
export function reach(name, next) {
  const seen = new Set([name]);
  for (const each of seen) for (const more of next(each)) seen.add(more);
  seen.delete(name);
  return [...seen];
}
