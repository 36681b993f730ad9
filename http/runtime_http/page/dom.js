// Small helpers: elements with attributes, and times in words.

const SVG = "http://www.w3.org/2000/svg";

export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((each) => each !== null && each !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

// These write only what has changed: nothing is drawn anew, and no screen reader reads it again.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setClass(element, wanted) {
  if (element.getAttribute("class") !== wanted) element.setAttribute("class", wanted);
}

export function setRows(list, rows) {
  const given = rows.filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false);
  const keys = given.map(([key]) => key).join("\n");
  if (list.dataset.keys !== keys) {
    list.dataset.keys = keys;
    list.replaceChildren(...given.flatMap(([key]) => [el("dt", {}, key), el("dd")]));
  }
  given.forEach(([, value], index) => setText(list.children[2 * index + 1], String(value)));
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function since(time) {
  return Math.max(0, (Date.now() - new Date(time)) / 1000);
}

export function until(time) {
  return Math.max(0, (new Date(time) - Date.now()) / 1000);
}

export function clock(timestamp) {
  const time = typeof timestamp === "number" ? new Date(timestamp * 1000) : new Date(timestamp);
  return el("time", { datetime: time.toISOString(), title: time.toLocaleString() }, time.toLocaleTimeString());
}

export function list(names, most = 4) {
  if (names.length <= most + 1) return names.join(", ");
  return `${names.slice(0, most).join(", ")} and ${names.length - most} more`;
}
