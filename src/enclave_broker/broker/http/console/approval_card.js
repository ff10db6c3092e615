// One call that waits for approval, to be read and decided. What can't be read whole can't be approved here.

import { h, setText } from "./dom.js";
import { age, clip, clock, count, json, visible, visibleLine } from "./text.js";

const MAX_FIRST = 4000;         // characters of the arguments that are shown at once
const MAX_WHOLE = 1_000_000;    // above that it isn't for a page

export class ApprovalCard {
  /** `entry` has `approval`, `state`, `note`, `busy`; `onDecide(decision, reason)` and `onMark()` are the list's. */
  constructor(entry, { onDecide, onMark, number }) {
    Object.assign(this, { entry, onDecide });
    const { approval } = entry;
    const title = visibleLine(approval.toolName, 130);
    this.text = json(approval.args, 2);
    this.isWhole = this.text.length <= MAX_FIRST;
    const id = `approval-${number}`;
    this.mark = onMark && h("input", { type: "checkbox", "aria-label": `Mark ${title}`, change: onMark });
    this.badge = h("span", { class: "badge" });
    this.expires = h("span", { class: "dim" });
    this.pre = h("pre", { class: "code", tabindex: "0", "aria-label": "Arguments" }, visible(clip(this.text, MAX_FIRST)));
    this.reason = h("input", { maxlength: "500", autocomplete: "off" });
    this.approve = h("button", { type: "button", class: "main", "aria-describedby": `${id}-why`,
      click: () => this.decide("approve") }, "Approve");
    this.deny = h("button", { type: "button", class: "danger", click: () => this.decide("deny") }, "Deny");
    this.why = h("p", { class: "dim", id: `${id}-why` });
    this.note = h("p", { class: "note", role: "status", tabindex: "-1" });
    this.form = h("div", { class: "line" }, h("label", { class: "wide" }, "Reason ", this.reason), this.approve, this.deny);
    this.element = h("article", { class: "approval", "aria-labelledby": id },
      h("div", { class: "head" }, this.mark, h("h4", { class: "code", id }, title), this.badge, this.expires),
      facts(approval), this.pre, this.whole(), this.why, this.form, this.note);
    this.update();
  }

  get isMarked() { return Boolean(this.mark?.checked) && this.canApprove; }

  get canApprove() { return this.isWhole && this.entry.state === "pending"; }

  whole() {
    if (this.isWhole || this.text.length > MAX_WHOLE) return undefined;
    const button = h("button", { type: "button", class: "quiet", click: () => {
      this.pre.textContent = visible(this.text);
      this.isWhole = true;
      button.remove();
      this.pre.focus();
      this.update();
    } }, `Show all ${count(this.text.length)} characters`);
    return button;
  }

  update() {
    const { approval, state, note, busy } = this.entry;
    const pending = state === "pending";
    const left = approval.expiresAt - Date.now();
    setText(this.badge, pending ? "waiting" : visibleLine(state, 20));
    this.badge.className = `badge ${{ pending: "outcome-waiting", approved: "outcome-done", denied: "outcome-denied" }[state] ?? ""}`;
    setText(this.expires, !pending || !Number.isFinite(left) ? "" : left > 0 ? `expires in ${age(left)}` : "expires now");
    setText(this.note, note);
    setText(this.why, !pending || this.isWhole ? "" : this.text.length > MAX_WHOLE
      ? "The arguments are too large to be read on a page, so it can't be approved here."
      : "Read all of the arguments before you approve.");
    this.form.hidden = !pending;
    this.approve.disabled = busy || !this.canApprove;
    this.deny.disabled = busy;
    this.element.classList.toggle("over", !pending);
    if (this.mark) {
      this.mark.disabled = !this.canApprove;
      this.mark.checked &&= this.canApprove;
    }
  }

  async decide(decision) {
    const hadFocus = this.element.contains(document.activeElement);
    await this.onDecide(decision, this.reason.value.trim());
    if (hadFocus && this.entry.state !== "pending") this.note.focus();
  }
}

function facts({ requestedBy = {}, rule, line, sessionId, createdAt }) {
  const tenant = requestedBy.tenant ? ` of ${visibleLine(requestedBy.tenant)}` : "";
  const items = [["Asked by", `${visibleLine(requestedBy.subject ?? "")}${tenant}`], ["Rule", visibleLine(rule ?? "", 500)],
    ["Since", clock(createdAt)], ["Line", line === undefined || line === null ? "" : String(line)],
    ["Session", h("a", { href: `#/session/${encodeURIComponent(sessionId)}` }, visibleLine(sessionId))]];
  return h("dl", {}, ...items.filter(([, value]) => value).flatMap(([name, value]) =>
    [h("dt", {}, name), h("dd", { class: "code" }, value)]));
}
