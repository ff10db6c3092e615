// One run: how it is, its calls, what it prints and its events, as they happen; and an end to it.

import { get, pauseAfter, post, sessionPath } from "./api.js";
import { CallTable } from "./calls.js";
import { announce, at, setText } from "./dom.js";
import { EventList, Output } from "./events.js";
import { Follow } from "./follow.js";
import { badge, isLive } from "./sessions.js";
import { clock, milliseconds, plural, shown, visible, visibleLine } from "./text.js";

const MAX_RESULT = 100_000; // characters
const SOON = 250;           // ms after an event that the calls are asked for
const CHANGES_CALLS = new Set(["tool_call", "tool_progress", "tool_result_applied", "final"]);

export class SessionView {
  constructor({ onUnauthorized, approvals }) {
    Object.assign(this, { onUnauthorized, approvals });
    this.events = new EventList(at("session-events"), at("session-types"), at("session-events-total"));
    this.output = new Output(at("session-output"));
    at("session-cancel-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.cancel();
    });
  }

  async enter(id, guard) {
    this.leave();
    this.id = id;
    this.guard = guard;
    this.info = undefined;
    this.events.clear();
    this.output.clear();
    this.calls = new CallTable(at("session-calls"));
    this.stale = true;
    this.nextCalls = 0;
    for (const each of ["session-result", "session-calls-total", "session-facts"]) at(each).replaceChildren();
    setText(at("session-id"), visibleLine(id));
    badge(at("session-state"), "…");
    at("session-cancel").hidden = true;
    at("session-cancel").open = false;
    this.says("Connecting …");
    this.approvals.show(at("session-approvals"), at("session-approvals-part"), id);
    const follow = this.follow = new Follow(id, {
      event: (event) => this.event(event),
      says: (text, kind) => this.says(text, kind),
      ended: () => this.says("The session is over; there is nothing more."),
      refused: (error) => this.refused(error),
    });
    follow.run();
    await this.tick();
  }

  leave() {
    this.follow?.stop();
    this.follow = undefined;
    clearTimeout(this.soon);
    this.soon = undefined;
    this.approvals.show(null);
  }

  says(text, kind = "") {
    setText(at("session-says"), visible(text));
    at("session-says").className = `notice ${kind}`;
  }

  refused(error) {
    if (error.status === 401) return this.onUnauthorized();
    this.says(error.status === 404 ? "There is no such session: it has been forgotten, or it is somebody else's."
      : `${error.code}: ${error.message}`, "bad");
  }

  /** Now and then, and soon after what changes it: what the stream doesn't say. */
  async tick() {
    const { id, follow } = this;
    clearTimeout(this.soon);
    this.soon = undefined;
    if (!follow || this.looking === follow || (this.info && !isLive(this.info.state) && !this.stale)) return;
    this.looking = follow; // one at a time, so that the newest answer is the last
    try {
      await this.look(id, follow);
    } finally {
      if (this.looking === follow) this.looking = undefined;
    }
  }

  async look(id, follow) {
    const isThis = () => this.follow === follow;
    try {
      const info = await get(sessionPath(id));
      if (!isThis()) return;
      this.shows(info);
      if (this.stale && Date.now() >= this.nextCalls) await this.refreshCalls(isThis);
    } catch (error) {
      if (error.status === undefined || error.isWorthRetrying) throw error;
      if (isThis()) this.refused(error);
    }
  }

  shows(info) {
    this.info = info;
    badge(at("session-state"), info.state);
    at("session-cancel").hidden = !isLive(info.state);
    setText(at("session-facts"), `Begun ${clock(info.createdAt)}, ${isLive(info.state) ? "runs for" : "took"} `
      + `${milliseconds(info.stats.duration)}, ${plural(info.stats.toolCallCount, "call")}`);
  }

  async refreshCalls(isThis) {
    const began = Date.now();
    this.stale = false;
    try {
      const { calls, total } = await get(sessionPath(this.id, "/calls"));
      if (!isThis()) return;
      this.calls.update(calls);
      setText(at("session-calls-total"), total ? String(total) : "");
    } catch (error) {
      if (error.code !== "TOO_LARGE") { this.stale = true; throw error; }
      if (isThis()) setText(at("session-calls-total"), "are too large to be shown on a page");
    }
    this.nextCalls = pauseAfter(began);
  }

  event(event) {
    this.events.add(event);
    if (CHANGES_CALLS.has(event.type)) {
      this.stale = true;
      this.soon ??= setTimeout(() => this.guard(() => this.tick()), SOON);
    }
    const payload = event.payload ?? {};
    if (event.type === "stdout") this.output.add(String(payload.chunk));
    if (event.type === "log") this.output.add(`${payload.level}: ${payload.message}\n`);
    if (event.type === "final") this.final(payload);
  }

  final({ ok, result, error }) {
    const where = error?.stack ? `\n${error.stack}` : "";
    setText(at("session-result"), ok ? shown(result, MAX_RESULT)
      : visible(`${error?.code ?? "error"}: ${error?.message ?? ""}${where}`.slice(0, MAX_RESULT)));
    this.says(ok ? "The run has completed." : `The run has failed: ${String(error?.code ?? "error").slice(0, 80)}`, ok ? "good" : "bad");
    this.info = undefined; // asked for once more, for what it came to
  }

  async cancel() {
    const reason = at("session-reason").value.trim();
    try {
      await post(sessionPath(this.id, "/cancel"), reason ? { reason } : {});
      at("session-cancel").open = false;
      at("session-reason").value = "";
      announce("The run is cancelled.");
      at("session-id").focus();
    } catch (error) {
      if (error.status === 401) this.onUnauthorized();
      else this.says(`It couldn't be cancelled: ${error.message}`, "bad");
    }
  }
}
