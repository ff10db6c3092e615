// The list of sessions: newest first, refreshed while it is looked at.

import { pauseAfter, sessions } from "./api.js";
import { at, h, roving, setText } from "./dom.js";
import { age, count, milliseconds, plural, visibleLine } from "./text.js";

const MAX_ROWS = 200; // that are shown
const LIVE = { starting: "starting", running: "running", waiting_for_tool: "waiting" };

export const isLive = (state) => state in LIVE;

/** A state's word, and the class of its badge. */
export function badge(element, state) {
  setText(element, LIVE[state] ?? visibleLine(state, 40));
  element.className = `badge state-${/^[a-z_]+$/.test(state) ? state : "other"}`;
}

export class SessionsView {
  constructor() {
    this.found = [];
    this.rows = new Map();
    this.pause = 0; // until when it isn't asked again
    this.settled = roving(at("sessions-rows"), "a");
    for (const id of ["sessions-state", "sessions-id"]) at(id).addEventListener("input", () => this.paint());
    at("sessions-form").addEventListener("submit", (event) => event.preventDefault());
  }

  enter() { return this.refresh(); }

  leave() {}

  async tick() {
    if (Date.now() >= this.pause) await this.refresh();
  }

  async refresh() {
    const began = Date.now();
    ({ sessions: this.found } = await sessions());
    this.pause = pauseAfter(began);
    this.paint();
  }

  wanted({ sessionId, state }) {
    const kind = at("sessions-state").value;
    if (kind === "live" ? !isLive(state) : kind === "over" ? isLive(state) : kind && state !== kind) return false;
    return sessionId.includes(at("sessions-id").value.trim());
  }

  paint() {
    const wanted = this.found.filter((each) => this.wanted(each));
    const shown = wanted.slice(0, MAX_ROWS);
    const ids = new Set(shown.map((each) => each.sessionId));
    for (const [id, row] of this.rows) {
      if (!ids.has(id)) { row.remove(); this.rows.delete(id); }
    }
    let before = null;
    for (const session of shown) {
      let row = this.rows.get(session.sessionId);
      if (!row) this.rows.set(session.sessionId, row = newRow(session.sessionId));
      fill(row, session);
      if (row.parentNode === null || row.previousElementSibling !== before) {
        if (before) before.after(row);
        else at("sessions-rows").prepend(row);
      }
      before = row;
    }
    at("sessions-none").hidden = this.found.length > 0;
    const live = this.found.filter((each) => isLive(each.state)).length;
    const hidden = wanted.length - shown.length;
    setText(at("sessions-total"), `${count(live)} live, ${count(this.found.length - live)} over`
      + (hidden ? `; the ${plural(MAX_ROWS, "newest", "newest")} of ${count(wanted.length)} are shown` : ""));
    this.settled();
  }
}

function newRow(id) {
  return h("tr", { class: "link" },
    h("td", { class: "id" }, h("a", { class: "code", tabindex: "-1", href: `#/session/${encodeURIComponent(id)}` }, visibleLine(id))),
    h("td", {}, h("span", { class: "badge" })),
    h("td", { class: "number" }), h("td", { class: "number wide-only" }), h("td", { class: "number" }));
}

function fill(row, { state, createdAt, stats }) {
  badge(row.cells[1].firstChild, state);
  setText(row.cells[2], age(Date.now() - createdAt));
  setText(row.cells[3], milliseconds(stats.duration));
  setText(row.cells[4], count(stats.toolCallCount));
}
