// Shows /openapi.json as a page.

import { byId, el, setText } from "../ui/dom.js";

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;

let description;
try {
  const response = await fetch("../openapi.json");
  description = await response.json();
  if (!response.ok) throw new Error(description.detail);
} catch (error) {
  byId("routes").replaceChildren(el("p", { role: "alert" }, `openapi.json could not be read: ${error.message}`));
  throw error;
}
setText(byId("version"), `${description.info.title} ${description.info.version}`);

const groups = new Map();
for (const [path, operations] of Object.entries(description.paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    const tag = operation.tags?.[0] ?? "other";
    if (!groups.has(tag)) groups.set(tag, []);
    groups.get(tag).push(show(path, method, operation));
  }
}
byId("routes").replaceChildren(...[...groups].map(([tag, entries]) =>
  el("section", { "aria-labelledby": `tag-${tag}` }, el("h2", { id: `tag-${tag}` }, tag), ...entries)));

function show(path, method, operation) {
  const parts = [];
  if (operation.description) parts.push(el("p", {}, operation.description));
  parts.push(el("pre", {}, example(path, method, operation)));
  if (operation.parameters?.length) {
    parts.push(el("h3", {}, "Parameters"), list(operation.parameters.map((each) => [
      `${each.name} (${each.in}${each.required ? "" : ", optional"})`,
      words(each.schema ?? {}, each.description),
    ])));
  }
  const body = operation.requestBody?.content["application/json"]?.schema;
  if (body) parts.push(el("h3", {}, "Body"), shape(body));
  parts.push(el("h3", {}, "Answers"), list(Object.entries(operation.responses).map(([status, answer]) => {
    const schema = Object.values(answer.content ?? {})[0]?.schema;
    const problem = "application/problem+json" in (answer.content ?? {});
    return [status, el("div", {}, answer.description, !problem && schema ? shape(schema) : "")];
  })));
  return el("details", { id: operation.operationId, "data-words": `${method} ${path} ${operation.summary ?? ""}`.toLowerCase() },
    el("summary", {}, el("span", { class: `method ${method}` }, method.toUpperCase()), " ",
      el("code", {}, path), ` ${operation.summary ?? ""}`), ...parts);
}

// The same with a tool that everybody has.
function example(path, method, operation) {
  const url = new URL(`..${path}`, location.href).href.replaceAll("%7B", "{").replaceAll("%7D", "}");
  const verb = method === "get" ? "" : ` -X ${method.toUpperCase()}`;
  const token = operation.security ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const body = operation.requestBody ? " --json '{…}'" : "";
  return `curl${verb}${token}${body} '${url}'`;
}

function list(rows) {
  return el("dl", {}, ...rows.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]));
}

function resolve(schema) {
  if (!schema.$ref) return schema;
  return description.components.schemas[schema.$ref.split("/").at(-1)] ?? {};
}

function type(schema) {
  if (schema.anyOf) return schema.anyOf.map(type).join(" or ");
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (schema.type === "array") return `list of ${type(schema.items ?? {})}`;
  return schema.type ?? "anything";
}

function words(schema, more) {
  return [type(schema), more ?? schema.description].filter(Boolean).join(": ");
}

function shape(schema, depth = 0) {
  const known = resolve(schema);
  if (known.type === "array" && depth < 4) return shape(known.items ?? {}, depth);
  if (!known.properties || depth > 3) return el("div", { class: "schema" }, words(schema));
  return el("div", { class: "schema" }, list(Object.entries(known.properties).map(([name, each]) => {
    const inner = each.type === "array" ? each.items : each;
    const nested = resolve(inner ?? {}).properties;
    return [name, el("div", {}, words(each), nested ? shape(inner, depth + 1) : "")];
  })));
}

function filter() {
  const wanted = byId("filter").value.toLowerCase();
  const all = [...document.querySelectorAll("details")];
  for (const entry of all) entry.hidden = !entry.dataset.words.includes(wanted);
  for (const section of byId("routes").children) {
    section.hidden = [...section.querySelectorAll("details")].every((each) => each.hidden);
  }
  const shown = all.filter((each) => !each.hidden).length;
  setText(byId("count"), `${shown} of ${all.length} routes`);
}

byId("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input")) return;
  byId("filter").focus();
  event.preventDefault();
});
function openLinked() {
  const linked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (linked?.matches("details")) {
    linked.open = true;
    linked.scrollIntoView();
  }
}
addEventListener("hashchange", openLinked);
byId("routes").addEventListener("toggle", (event) => {
  if (event.target.open) history.replaceState(null, "", `#${event.target.id}`);
}, { capture: true });
filter();
openLinked();
