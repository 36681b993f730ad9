// What a process uses: numbers, and charts of the last minutes.

import { get, pathOf, pause } from "./api.js";
import { duration, el, setRows, setText, svg } from "./dom.js";

const EVERY_MS = 2000, WIDTH = 300, HEIGHT = 56;

export async function showUse(panel, name, signal) {
  const words = el("p", { class: "soft" }, "measuring …");
  const rows = el("dl");
  const cpu = new Chart("cpu", "% of a core"), memory = new Chart("memory", "MiB");
  panel.append(words, rows, cpu.figure, memory.figure);
  while (!signal.aborted) {
    try {
      const use = await get(`/processes/${pathOf(name)}/stats`, signal);
      const last = use.history.at(-1);
      setText(words, last ? "Of the process and all that descends from it." : "Nothing has been measured: it does not run.");
      if (last) {
        setRows(rows, [
          ["cpu", `${last.family_cpu_percent.toFixed(1)} % of a core`],
          ["memory", `${last.family_memory_mb.toFixed(1)} MiB`],
          ["most so far", `${use.max_cpu_percent.toFixed(1)} %, ${use.max_memory_mb.toFixed(1)} MiB (it alone)`],
          ["processes", last.family_size],
          ["open files", last.open_files],
          ["listens at", (last.listening ?? []).join(", ")],
        ]);
        cpu.update(use.history, (each) => each.family_cpu_percent);
        memory.update(use.history, (each) => each.family_memory_mb);
      }
    } catch (error) {
      if (!signal.aborted) setText(words, error.message);
    }
    await pause(EVERY_MS, signal);
  }
}

class Chart {
  constructor(label, measure) {
    this.label = label;
    this.measure = measure;
    this.caption = el("figcaption");
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.svg = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      svg("path", { class: "base", d: `M0,${HEIGHT - 1} H${WIDTH}` }), this.area, this.line);
    this.span = el("span", { class: "soft" });
    this.figure = el("figure", {}, this.caption, this.svg, this.span);
  }

  update(history, pick) {
    const times = history.map((each) => new Date(each.timestamp).getTime());
    const values = history.map(pick);
    const most = Math.max(...values, 1e-9), first = times[0], last = times.at(-1);
    const points = values.map((value, index) => {
      const x = last > first ? ((times[index] - first) / (last - first)) * WIDTH : 0;
      return `${x.toFixed(1)},${(HEIGHT - 2 - (value / (most * 1.1)) * (HEIGHT - 4)).toFixed(1)}`;
    });
    this.line.setAttribute("d", `M${points.join(" L")}`);
    this.area.setAttribute("d", `M0,${HEIGHT} L${points.join(" L")} V${HEIGHT} Z`);
    const words = `${this.label}: ${values.at(-1).toFixed(1)} ${this.measure}, at most ${Math.max(...values).toFixed(1)}`;
    setText(this.caption, words);
    this.svg.setAttribute("aria-label", words);
    setText(this.span, last > first ? `the last ${duration((last - first) / 1000)}` : "");
  }
}
