// Calls that wait for approval: asked for all the time, and decided here. Without approvals in the API it isn't there.

import { get, pauseAfter, post } from "./api.js";
import { ApprovalCard } from "./approval_card.js";
import { announce, at, setText } from "./dom.js";
import { count, plural, visible } from "./text.js";

const MAX_PENDING = 200; // that are shown
const MAX_DECIDED = 50;  // that stay to be seen, until the view is left

/** What is pending, and what has become of what was. */
export class Approvals {
  constructor({ onUnauthorized }) {
    this.onUnauthorized = onUnauthorized;
    this.entries = new Map();
    this.total = 0;
    this.isThere = undefined; // unknown yet
    this.pause = 0;
    this.lists = [];
    this.ofSession = null;
  }

  /** Another list in the view of a session, or none. */
  show(place, part, sessionId) {
    this.lists = this.lists.filter((each) => each !== this.ofSession);
    this.ofSession = null;
    if (!place) return;
    this.ofSession = new CardList(place, this, { sessionId, part });
    this.lists.push(this.ofSession);
    this.paint();
  }

  reset() {
    this.entries.clear();
    this.total = 0;
    this.isThere = undefined;
    this.pause = 0;
    this.paint();
  }

  forgetDecided() {
    for (const [id, entry] of this.entries) if (entry.state !== "pending") this.entries.delete(id);
    this.paint();
  }

  async poll() {
    if (this.isThere === false || Date.now() < this.pause) return;
    const began = Date.now();
    let answer;
    try {
      answer = await get("approvals");
    } catch (error) {
      if (error.status !== 404 && error.status !== 403) throw error;
      this.isThere = false;
      return this.paint();
    }
    this.pause = pauseAfter(began);
    this.isThere = true;
    this.take(answer);
  }

  take({ approvals, total }) {
    const before = this.total;
    this.total = total;
    const ids = new Set(approvals.map((each) => each.approvalId));
    for (const approval of approvals) {
      if (!this.entries.has(approval.approvalId)) {
        this.entries.set(approval.approvalId, { approval, state: "pending", note: "", busy: false });
      }
    }
    for (const [id, entry] of this.entries) {
      if (entry.state === "pending" && !entry.busy && !ids.has(id)) this.lookUp(entry);
    }
    if (total > before) announce(`${plural(total, "approval")} pending.`);
    this.paint();
  }

  /** It isn't pending any more, and not by us. */
  async lookUp(entry) {
    const { approvalId } = entry.approval;
    entry.state = "over";
    entry.note = "It isn't pending any more.";
    try {
      const { state, reason, decidedBy } = await get(`approvals/${encodeURIComponent(approvalId)}`);
      if (state !== "pending") {
        entry.state = state;
        entry.note = said(state, typeof decidedBy === "string" ? decidedBy : decidedBy?.subject, reason);
      }
    } catch { /* forgotten, or nobody answers: what is known is said */ }
    this.paint();
  }

  async decide(entry, decision, reason) {
    if (entry.busy || entry.state !== "pending") return;
    const { approvalId } = entry.approval;
    entry.busy = true;
    this.paint();
    try {
      await post(`approvals/${encodeURIComponent(approvalId)}`, reason ? { decision, reason } : { decision });
      entry.state = decision === "approve" ? "approved" : "denied";
      entry.note = said(entry.state, "you", reason);
      this.total = Math.max(0, this.total - 1);
    } catch (error) {
      if (error.status === 401) this.onUnauthorized();
      if (error.status === 409 || error.status === 404) await this.lookUp(entry);
      else entry.note = `It couldn't be decided: ${visible(error.message)}`;
    }
    entry.busy = false;
    this.paint();
  }

  paint() {
    const there = this.isThere === true;
    at("approvals-link").hidden = !there;
    setText(at("approvals-count"), this.total ? count(this.total) : "");
    document.title = `${this.total ? `(${count(this.total)}) ` : ""}enclave-broker console`;
    const decided = [...this.entries].filter(([, entry]) => entry.state !== "pending" && !entry.busy);
    for (const [id] of decided.slice(0, Math.max(0, decided.length - MAX_DECIDED))) this.entries.delete(id);
    for (const list of this.lists) list.paint();
  }
}

/** The entries, or those of one session, as cards that keep their places. */
class CardList {
  constructor(place, approvals, { sessionId, part, onMark } = {}) {
    Object.assign(this, { place, approvals, sessionId, part, onMark });
    this.cards = new Map();
    place.replaceChildren();
  }

  paint() {
    const entries = [...this.approvals.entries.values()]
      .filter((entry) => !this.sessionId || entry.approval.sessionId === this.sessionId);
    const shown = new Set(entries.slice(0, MAX_PENDING + MAX_DECIDED));
    for (const [entry, card] of this.cards) {
      if (!shown.has(entry)) { card.element.remove(); this.cards.delete(entry); }
    }
    for (const entry of shown) {
      const card = this.cards.get(entry);
      if (card) card.update();
      else this.add(entry);
    }
    if (this.part) this.part.hidden = this.cards.size === 0;
    this.hidden = entries.length - shown.size;
  }

  add(entry) {
    const card = new ApprovalCard(entry, { number: CardList.number++, onMark: this.onMark,
      onDecide: (decision, reason) => this.approvals.decide(entry, decision, reason) });
    this.cards.set(entry, card);
    this.place.append(card.element);
  }

  static number = 0;
}

/** The view of all of them, where several can be decided together. */
export class ApprovalsView {
  constructor(approvals) {
    this.approvals = approvals;
    this.list = new CardList(at("approvals-list"), approvals, { onMark: () => this.marks() });
    this.list.paint = () => { CardList.prototype.paint.call(this.list); this.paint(); };
    approvals.lists.push(this.list);
    at("approve-marked").addEventListener("click", () => this.decideMarked("approve"));
    at("deny-marked").addEventListener("click", () => this.decideMarked("deny"));
    at("mark-all").addEventListener("click", () => {
      for (const card of this.list.cards.values()) if (card.canApprove) card.mark.checked = true;
      this.marks();
    });
  }

  enter() { this.approvals.forgetDecided(); }

  leave() {}

  async tick() {}

  paint() {
    const { total, isThere } = this.approvals;
    const hidden = this.list.hidden ? `; ${count(this.list.hidden)} more are shown when these are decided` : "";
    setText(at("approvals-total"), isThere === false ? "This server has no approvals."
      : total ? `${count(total)} pending${hidden}` : "Nothing waits for approval.");
    at("approvals-many").hidden = [...this.list.cards.values()].filter((card) => card.canApprove).length < 2;
    this.marks();
  }

  marked() { return [...this.list.cards.values()].filter((card) => card.isMarked); }

  marks() {
    const number = this.marked().length;
    for (const id of ["approve-marked", "deny-marked"]) at(id).disabled = number === 0;
    setText(at("marked-total"), number ? `${count(number)} marked` : "");
  }

  async decideMarked(decision) {
    const cards = this.marked();
    for (const card of cards) await this.approvals.decide(card.entry, decision, card.reason.value.trim());
    announce(`${plural(cards.length, "call")} decided.`);
    at("approvals").querySelector("h2").focus();
  }
}

function said(state, by, reason) {
  const who = by ? ` by ${visible(String(by).slice(0, 200))}` : "";
  return `${state[0].toUpperCase()}${state.slice(1)}${who}${reason ? `: ${visible(String(reason).slice(0, 500))}` : "."}`;
}
