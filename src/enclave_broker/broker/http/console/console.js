// The page: which view is shown, who is asking, and what is asked for again and again.

import { get, hasKey, useKey } from "./api.js";
import { Approvals, ApprovalsView } from "./approvals.js";
import { announce, at, setText } from "./dom.js";
import { HistoryView } from "./history.js";
import { SessionView } from "./session.js";
import { SessionsView } from "./sessions.js";
import { StartView } from "./start.js";
import { visible } from "./text.js";
import { ToolsView } from "./tools.js";

const PAUSE = 2000;         // ms between two looks
const HIDDEN_PAUSE = 10_000; // while nobody sees the page

const approvals = new Approvals({ onUnauthorized: askKey });
const views = {
  sessions: new SessionsView(),
  session: new SessionView({ onUnauthorized: askKey, approvals }),
  approvals: new ApprovalsView(approvals),
  history: new HistoryView(),
  tools: new ToolsView(),
  start: new StartView(),
};
let current = null;
let isAsking = false; // for the key
let timer;
let turn = 0; // of looking: the newest goes on, so that there is never more than one

// --- Which view ---------------------------------------------------------------------------------------------------

function asked() {
  const [, name, argument] = /^#\/([a-z]+)(?:\/(.+))?$/.exec(location.hash) ?? [];
  const known = Object.hasOwn(views, name ?? "") && (name !== "session" || argument);
  let id = "";
  try { id = decodeURIComponent(argument ?? ""); } catch { return ["sessions", ""]; }
  return known ? [name, id] : ["sessions", ""];
}

function only(name) {
  for (const section of at("main").children) section.hidden = section.id !== name;
  for (const link of at("nav").children) {
    const isHere = link.hash === `#/${name === "session" ? "sessions" : name}`;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function go({ focus = true } = {}) {
  if (isAsking) return;
  const [name, argument] = asked();
  current?.leave();
  current = views[name];
  only(name);
  at("nav").hidden = false;
  if (focus) {
    scrollTo(0, 0);
    at(name).querySelector("h2").focus();
  }
  await guard(() => current.enter(argument, guard));
}

// --- What may go wrong --------------------------------------------------------------------------------------------

/** Do it; a 401 asks for the key, anything else is said in the page's head. */
async function guard(work) {
  try {
    await work();
    link("connected", "good");
  } catch (error) {
    if (error.status === 401) askKey();
    else if (error.status === undefined) link("no answer", "bad", error.message);
    else link(`${error.code}`, "bad", error.message);
  }
}

function link(text, kind, more = "") {
  if (at("link").textContent !== text && kind === "bad") announce(visible(`${text}: ${more}`));
  setText(at("link"), visible(text));
  at("link").title = visible(more);
  at("link").className = `badge link-${kind}`;
}

// --- Who is asking ------------------------------------------------------------------------------------------------

function askKey() {
  if (isAsking) return;
  isAsking = true;
  current?.leave();
  current = null;
  setText(at("key-problem"), hasKey() ? "The server doesn't take this key (any more)." : "");
  useKey("");
  only("key");
  at("nav").hidden = true;
  at("forget").hidden = true;
  at("key-text").focus();
}

async function enterKey() {
  const text = at("key-text").value.trim();
  at("key-text").value = "";
  if (!text) return;
  useKey(text);
  try {
    await get("sessions?limit=1");
  } catch (error) {
    useKey("");
    setText(at("key-problem"), error.status === 401 ? "The server doesn't take this key."
      : visible(`It couldn't be tried: ${error.message}`));
    return at("key-text").focus();
  }
  isAsking = false;
  begin();
}

function forget() {
  useKey("");
  approvals.reset();
  location.reload(); // so that nothing of what was shown is left
}

// --- Again and again ----------------------------------------------------------------------------------------------

async function look() {
  clearTimeout(timer);
  const mine = ++turn;
  if (!isAsking) {
    await guard(async () => {
      if (!document.hidden) await current?.tick();
      await approvals.poll();
    });
  }
  if (mine === turn) timer = setTimeout(look, document.hidden ? HIDDEN_PAUSE : PAUSE);
}

function begin() {
  at("forget").hidden = !hasKey();
  go({ focus: false }).then(look);
}

addEventListener("hashchange", () => go());
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || isAsking) return;
  if (event.target.matches("input, textarea, select")) event.target.blur();
  else if (location.hash.startsWith("#/session/")) location.hash = "#/sessions";
});
at("key-form").addEventListener("submit", (event) => { event.preventDefault(); enterKey(); });
at("forget").addEventListener("click", forget);
begin();
