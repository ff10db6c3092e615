// The calls of the newest sessions, with the rule that decided each.

import { get, sessionPath, sessions } from "./api.js";
import { CallTable } from "./calls.js";
import { at, setText } from "./dom.js";
import { isLive } from "./sessions.js";
import { count, plural } from "./text.js";

const AT_ONCE = 20; // sessions whose calls are asked for

export class HistoryView {
  constructor() {
    this.table = new CallTable(at("history-calls"), { sessions: true });
    this.over = new Map(); // the calls of sessions that are over: they stay as they are
    this.groups = [];
    at("history-form").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["history-outcome", "history-text"]) at(id).addEventListener("input", () => this.paint());
    at("history-again").addEventListener("click", () => this.asked(AT_ONCE));
    at("history-older").addEventListener("click", () => this.asked(this.most + AT_ONCE));
  }

  enter(_, guard) {
    this.guard = guard;
    return this.load(AT_ONCE);
  }

  leave() { this.round = undefined; }

  async tick() {}

  asked(most) { this.guard(() => this.load(most)); }

  async load(most) {
    const round = this.round = {};
    this.most = most;
    setText(at("history-total"), "Loading …");
    const with_calls = (await sessions()).sessions.filter((each) => each.stats.toolCallCount > 0);
    const groups = [];
    for (const session of with_calls.slice(0, most)) {
      groups.push([session, await this.calls(session)]);
      if (this.round !== round) return;
    }
    this.groups = groups;
    for (const id of this.over.keys()) {
      if (!groups.some(([session]) => session.sessionId === id)) this.over.delete(id);
    }
    at("history-older").hidden = with_calls.length <= most;
    this.paint();
  }

  async calls({ sessionId, state }) {
    const known = this.over.get(sessionId);
    if (known) return known;
    try {
      const { calls } = await get(sessionPath(sessionId, "/calls"));
      if (!isLive(state)) this.over.set(sessionId, calls);
      return calls;
    } catch (error) {
      if (error.status === 404 || error.code === "TOO_LARGE") return []; // forgotten meanwhile, or nothing for a page
      throw error;
    }
  }

  paint() {
    const outcome = at("history-outcome").value;
    const text = at("history-text").value.trim().toLowerCase();
    const all = this.groups.flatMap(([{ sessionId }, calls]) => calls.toReversed().map((call) => [call, sessionId])).reverse();
    const wanted = all.filter(([call, id]) => (!outcome || call.outcome === outcome)
      && (!text || [call.toolName, call.rule ?? "", id].some((each) => each.toLowerCase().includes(text))));
    this.table.update(wanted);
    setText(at("history-total"), `${wanted.length === all.length ? "" : `${count(wanted.length)} of `}${plural(all.length, "call")} `
      + `of ${plural(this.groups.length, "session")}, newest first`);
  }
}
