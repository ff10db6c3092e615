// A table of tool calls: what was called, what came of it and which rule decided; the rest of a call when it is opened.

import { h, roving, setText } from "./dom.js";
import { bytes, clock, count, milliseconds, shown, visible, visibleLine } from "./text.js";

const MAX_ROWS = 500;              // that are shown, the newest
const MAX_CHARACTERS = 20_000;     // of arguments
const OUTCOMES = { done: "done", failed: "failed", denied: "denied", waiting: "waiting", unknown: "unknown", not_run: "not run" };

export class CallTable {
  /** With `sessions` each call is `[call, sessionId]` and says whose it is. */
  constructor(place, { sessions = false } = {}) {
    this.sessions = sessions;
    this.rows = new Map();
    this.body = h("tbody");
    const names = ["Tool", "Outcome", "Decided by", "Started", "Took", "In / out"];
    const heads = names.map((name) => h("th", { scope: "col", class: classOf(name) }, name));
    if (sessions) heads.push(h("th", { class: "session" }, "Session"));
    this.table = h("table", { class: "calls" }, h("thead", {}, h("tr", {}, ...heads)), this.body);
    this.none = h("p", { class: "none" }, "No calls.");
    this.more = h("p", { class: "dim" });
    this.settled = roving(this.body, "button.open");
    place.replaceChildren(this.table, this.none, this.more);
    this.update([]);
  }

  update(calls) {
    const newest = calls.slice(-MAX_ROWS).map((each) => (this.sessions ? each : [each, ""]));
    const keys = new Set(newest.map(([call, session]) => `${session} ${call.callId}`));
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) { row.remove(); this.rows.delete(key); }
    }
    let before = null;
    for (const [call, session] of this.sessions ? newest.toReversed() : newest) {
      const key = `${session} ${call.callId}`;
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, row = new CallRow(call, session));
      row.update(call);
      row.standAfter(before, this.body);
      before = row;
    }
    this.table.hidden = newest.length === 0;
    this.none.hidden = newest.length > 0;
    const older = calls.length - newest.length;
    setText(this.more, older ? `${count(older)} older calls aren't shown.` : "");
    this.settled();
  }
}

class CallRow {
  constructor(call, session) {
    this.signature = "";
    const id = `call-${Math.random().toString(36).slice(2)}`;
    this.button = h("button", { type: "button", class: "open code", tabindex: "-1", "aria-expanded": "false",
      "aria-controls": id, click: () => this.toggle() }, visibleLine(call.toolName));
    const cells = ["Outcome", "Decided by", "Started", "Took", "In / out"];
    this.cells = cells.map((name) => h("td", { class: classOf(name) }));
    this.row = h("tr", {}, h("td", { class: "tool" }, this.button), ...this.cells);
    if (session) {
      const name = visibleLine(session);
      this.row.append(h("td", { class: "session" },
        h("a", { class: "code", title: name, href: `#/session/${encodeURIComponent(session)}` }, name)));
    }
    this.whole = h("td", { colspan: String(6 + (session ? 1 : 0)) });
    this.detail = h("tr", { id, class: "detail", hidden: true }, this.whole);
    this.session = session;
  }

  update(call) {
    const signature = JSON.stringify([call.outcome, call.rule, call.startedAt, call.durationMs, call.resultBytes,
      call.stages?.length, call.error?.code]);
    if (signature === this.signature) return;
    this.signature = signature;
    this.call = call;
    const [outcome, rule, started, took, sizes] = this.cells;
    const word = OUTCOMES[call.outcome] ?? visibleLine(call.outcome);
    outcome.replaceChildren(h("span", { class: `badge outcome-${call.outcome in OUTCOMES ? call.outcome : "unknown"}` }, word));
    if (call.error) outcome.append(" ", h("span", { class: "code" }, visibleLine(call.error.code, 60)));
    setText(rule, call.rule ? visibleLine(call.rule) : "");
    setText(started, call.startedAt === undefined ? "" : clock(call.startedAt));
    setText(took, call.durationMs === undefined ? "" : milliseconds(call.durationMs));
    setText(sizes, `${bytes(call.argsBytes)} / ${call.resultBytes ? bytes(call.resultBytes) : "–"}`);
    if (!this.detail.hidden) this.fill();
  }

  toggle() {
    this.detail.hidden = !this.detail.hidden;
    this.button.setAttribute("aria-expanded", String(!this.detail.hidden));
    if (this.detail.hidden) this.whole.replaceChildren();
    else this.fill();
  }

  fill() {
    const { call } = this;
    const facts = [["Decided by", call.rule], ["Asked by", call.principal], ["Route", call.route], ["Call", call.callId],
      ["Session", this.session], ["Sizes", `${bytes(call.argsBytes)} of arguments, ${bytes(call.resultBytes ?? 0)} of result`],
      ["Started", call.startedAt === undefined ? undefined : clock(call.startedAt)], ["Stages", stages(call.stages)],
      ["Error", call.error && `${call.error.code}: ${call.error.message}`]];
    this.whole.replaceChildren(
      h("dl", {}, ...facts.filter(([, value]) => value).flatMap(([name, value]) =>
        [h("dt", {}, name), h("dd", { class: "code" }, visible(String(value).slice(0, 4000)))])),
      h("pre", { class: "code", tabindex: "0", "aria-label": "Arguments" }, shown(call.args, MAX_CHARACTERS)));
  }

  standAfter(row, body) {
    const before = row ? row.detail : null;
    if (this.row.parentNode === body && this.row.previousElementSibling === before) return;
    if (before) before.after(this.row, this.detail);
    else body.prepend(this.row, this.detail);
  }

  remove() {
    this.row.remove();
    this.detail.remove();
  }
}

function stages(list) {
  if (!list?.length) return undefined;
  const first = list[0].at;
  return list.map(({ stage, at }) => (at === first ? stage : `${stage} +${milliseconds(at - first)}`)).join(", ");
}

function classOf(name) {
  return { Outcome: "outcome", "Decided by": "rule", Started: "number wide-only", Took: "number", "In / out": "number wide-only" }[name] ?? "";
}
