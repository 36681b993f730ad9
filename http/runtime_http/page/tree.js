// What is known of the tree: kept up to date by the stream of events.

import { follow, get, pathOf, pause } from "./api.js";

const FIRST_PAUSE_MS = 500, LONGEST_PAUSE_MS = 10_000;
const MOST_EVENTS = 100, EVENTS_BEFORE = 40;

// What a server leaves out because there is nothing to tell.
const EMPTY = {
  healthy: null, reason: "", note: "", status_text: "", requirements: [], waiting_for: [], next_restart_at: null,
  started_at: null, ready_after_sec: null, ran_sec: null, error: null, stop: null, pid: null, restarts: 0,
};

export class Tree extends EventTarget {
  units = new Map();
  stats = {};
  state = "";
  version = "";
  stopping = null;
  stopEnds = null; // when the time of a stop under way is over
  events = []; // the oldest first
  heard = null; // when something was heard last
  connected = false;
  #retry = new AbortController();

  // Follows the events for ever. After an interruption it begins anew with a snapshot: what answers
  // then may be another tree, whose events have other numbers.
  async run(onLink) {
    let wait = FIRST_PAUSE_MS;
    for (;;) {
      let problem = null;
      try {
        await follow("/events", (kind, data, number) => this.take(kind, data, number), {
          onOpen: () => {
            wait = FIRST_PAUSE_MS;
            this.connected = true;
            onLink(null, 0);
          },
        });
      } catch (error) {
        problem = error;
      }
      this.connected = false;
      this.#retry = new AbortController();
      problem ??= new Error("the server has ended the connection");
      // Another try without another token is of no use.
      const waitMs = problem.status === 401 ? null : wait;
      onLink(problem, waitMs);
      await pause(waitMs, this.#retry.signal);
      wait = Math.min(wait * 2, LONGEST_PAUSE_MS);
    }
  }

  retryNow() {
    this.#retry.abort();
  }

  take(kind, data, number) {
    this.heard = new Date();
    if (kind === "snapshot" || kind === "resync") {
      this.replace(data.snapshot ?? data);
      this.readBefore(number);
      this.dispatchEvent(new Event("invocations")); // nobody knows what has been told of them meanwhile
    } else if (kind === "invocation" || kind === "missed") {
      if (data.invocation?.status === "failed") this.remember(data);
      this.dispatchEvent(new Event("invocations"));
    } else {
      this.note(data);
    }
    this.dispatchEvent(new Event("change"));
  }

  replace(snapshot) {
    this.units = new Map((snapshot.units ?? []).map((unit) => [unit.name, complete(unit)]));
    this.state = snapshot.state;
    this.version = snapshot.version ?? "";
    this.stopping = snapshot.stopping ?? null;
    this.stopEnds = inSeconds(snapshot.stop_left_sec);
  }

  note(event) {
    this.remember(event);
    if (event.now === undefined) return; // a later event of the unit says how it stands
    if (event.now) this.units.set(event.unit, complete(event.now));
    else if (event.unit) this.units.delete(event.unit);
    if (event.state) this.state = event.state;
    this.stopping = event.stopping ?? null;
  }

  remember(event) {
    this.events.push(event);
    if (this.events.length > MOST_EVENTS) this.events.shift();
  }

  // What happened before this page was opened.
  async readBefore(number) {
    this.events = [];
    if (!number) return;
    let before = [];
    try {
      before = (await get(`/events/recent?limit=${EVENTS_BEFORE}`)).events.filter((event) => event.number <= number);
    } catch {
      // the link is lost and says so
    }
    this.events = [...before, ...this.events].slice(-MOST_EVENTS);
    this.dispatchEvent(new Event("change"));
  }

  // What processes use is measured while somebody asks only.
  async watchStats(everyMs) {
    for (;;) {
      if (this.connected && document.visibilityState === "visible") {
        try {
          this.stats = (await get("/stats")).stats;
          this.dispatchEvent(new Event("change"));
        } catch {
          // the link says so already
        }
      }
      await pause(everyMs);
    }
  }

  // What a stop waits for changes without an event.
  async watchStops(everyMs) {
    for (;;) {
      await pause(everyMs);
      if (!this.connected) continue;
      try {
        if (this.stopping) {
          this.replace(await get("/tree"));
          this.dispatchEvent(new Event("change"));
        } else {
          await this.#lookAtStops();
        }
      } catch {
        // the link says so already, or the unit is gone
      }
    }
  }

  async #lookAtStops() {
    const names = [...this.units.values()].filter((unit) => unit.stage === "stopping").map((unit) => unit.name);
    for (const name of names.slice(0, 10)) {
      const unit = complete(await get(`/tree/${pathOf(name)}`));
      if (this.units.get(name)?.stage === "stopping" && unit.stage === "stopping") this.units.set(name, unit);
    }
    if (names.length) this.dispatchEvent(new Event("change"));
  }
}

function complete(given) {
  const unit = { ...EMPTY };
  for (const [key, value] of Object.entries(given)) if (value !== null) unit[key] = value;
  if (unit.stop) unit.stop = { ...unit.stop, ends: inSeconds(unit.stop.left_sec) };
  return unit;
}

function inSeconds(seconds) {
  return seconds === null || seconds === undefined ? null : new Date(Date.now() + seconds * 1000);
}
