// Requests to the server that has sent this page, and its streams of events.

// Kept in this tab alone, and sent in a header: never in an address.
let token = sessionStorage.getItem("token") ?? "";
// The server says every 15 s that it is there.
const SILENCE_MS = 40_000;

export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export function hasToken() {
  return token !== "";
}

export function useToken(value) {
  token = value.trim();
  if (token) sessionStorage.setItem("token", token);
  else sessionStorage.removeItem("token");
}

async function request(path, { headers = {}, ...options } = {}) {
  const all = token ? { ...headers, authorization: `Bearer ${token}` } : headers;
  const response = await fetch(`..${path}`, { ...options, headers: all, cache: "no-store" });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let detail = `${response.status} ${response.statusText}`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // no problem document: the status has to do
  }
  return new Refusal(response.status, detail);
}

export async function get(path, signal) {
  return (await request(path, { signal })).json();
}

// All of an answer, to be kept as a file.
export async function getWhole(path) {
  return (await request(path)).blob();
}

export async function post(path, body) {
  const more = body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return (await request(path, { method: "POST", ...more })).json();
}

// Does what may take the token, which askForToken(why) is asked for as long as it is refused and somebody gives
// another one. (Whether it does is not known here: a proxy may add it.) Tells how it goes; returns the answer, or null.
export async function act(verb, work, { askForToken, tell, setBusy }) {
  let why;
  do {
    tell(`${verb} …`);
    setBusy(true);
    try {
      const answer = await work();
      tell(`${verb}: done`);
      return answer;
    } catch (error) {
      if (error.status !== 401) {
        tell(`${verb}: ${error.message}`);
        return null;
      }
      why = token ? "This token was refused." : "";
      useToken("");
    } finally {
      setBusy(false);
    }
  } while (await askForToken(why));
  tell(`${verb}: not done, as it takes the token`);
  return null;
}

// Calls onEvent(kind, data, number) for each event of a stream, until it ends or the signal says so.
// (EventSource cannot send the token.)
export async function follow(path, onEvent, { signal, onOpen } = {}) {
  const silence = new AbortController();
  const response = await request(path, { signal: AbortSignal.any([silence.signal, ...(signal ? [signal] : [])]) });
  onOpen?.();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const timer = setTimeout(() => silence.abort(new Error("the server says nothing any more")), SILENCE_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) dispatch(block, onEvent);
  }
}

function dispatch(block, onEvent) {
  let kind = "message", data = "", number;
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
    else if (line.startsWith("id: ")) number = Number(line.slice(4));
  }
  if (data) onEvent(kind, JSON.parse(data), number);
}

export function pathOf(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}

// Without a time: until the signal says so.
export function pause(ms, signal) {
  return signal?.aborted ? Promise.resolve() : new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = ms === null ? undefined : setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}
