// The HTTP API: the key that goes with each request, answers that are bounded, refusals as errors.
//
// Paths are relative to the page, so that the server may be mounted anywhere. The key is sent as a header and stands in
// no address; it is kept for this tab only.

const STORED = `enclave-broker key of ${location.pathname}`;
const MAX_BYTES = 32 * 1024 * 1024;     // of an answer; what is larger isn't for a page
const SECONDS = 20;                     // after which a request that isn't a stream is given up

/** The server has said no. `status` is HTTP's, `code` the API's. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  get isWorthRetrying() { return [408, 429, 500, 502, 503, 504].includes(this.status); }
}

let key = stored();

function stored() {
  try { return sessionStorage.getItem(STORED) ?? ""; } catch { return ""; } // storage may be forbidden
}

export function useKey(text) {
  key = text;
  try {
    if (text) sessionStorage.setItem(STORED, text);
    else sessionStorage.removeItem(STORED);
  } catch { /* then it lives as long as the page */ }
}

export const hasKey = () => key !== "";

function headers(more) {
  if (!key) return more;
  // A header holds bytes: those of the key in UTF-8.
  const token = String.fromCharCode(...new TextEncoder().encode(key));
  return { ...more, Authorization: `Bearer ${token}` };
}

/** The answer, once it is one that says yes. Throws Refused. */
export async function open(path, { accept = "application/json", ...options } = {}) {
  const response = await fetch(path, {
    ...options,
    headers: headers({ Accept: accept, ...options.headers }),
    cache: "no-store",
    redirect: "error", // the key goes nowhere else
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let body = {};
  try { body = JSON.parse(await text(response, 65_536)) ?? {}; } catch { /* a proxy's page, perhaps */ }
  return new Refused(response.status, String(body.code ?? response.status), String(body.message ?? response.statusText));
}

async function text(response, most) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parts = [];
  for (let size = 0; ;) {
    const { done, value } = await reader.read();
    if (done) return parts.join("") + decoder.decode();
    size += value.length;
    if (size > most) {
      reader.cancel().catch(() => {});
      throw new Refused(0, "TOO_LARGE", "the answer is too large to be shown on a page");
    }
    parts.push(decoder.decode(value, { stream: true }));
  }
}

async function request(path, options) {
  const signal = AbortSignal.timeout(SECONDS * 1000);
  return JSON.parse(await text(await open(path, { ...options, signal }), MAX_BYTES));
}

export const get = (path) => request(path, {});

export const post = (path, body) =>
  request(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });

export const sessionPath = (id, rest = "") => `sessions/${encodeURIComponent(id)}${rest}`;

/** Until when not to ask again for what took since `began`: what is large isn't asked for all the time. */
export function pauseAfter(began) {
  const took = Date.now() - began;
  return took > 200 ? Date.now() + 10 * took : 0;
}

/** Sessions, newest first: the newest `most` of them at most, and how many there are. */
export async function sessions(most = 5000) {
  const found = [];
  for (let after = ""; ;) {
    const page = await get(`sessions?limit=1000${after && `&after=${encodeURIComponent(after)}`}`);
    found.push(...page.sessions);
    if (page.sessions.length < 1000 || found.length >= most) return { sessions: found.reverse(), total: page.total };
    after = found.at(-1).sessionId;
  }
}

/** Begin a run that goes on by itself. Returns its session's id. */
export async function start(code) {
  const response = await open("sessions", {
    method: "POST",
    body: JSON.stringify({ code, detach: true }),
    headers: { "Content-Type": "application/json" },
    accept: "application/x-ndjson",
  });
  response.body.cancel().catch(() => {});
  return response.headers.get("X-Session-ID");
}
