// One session's events, each once and in order, from the first: over as many connections as it takes.

import { get, open, Refused, sessionPath } from "./api.js";

const MAX_LINE = 64 * 1024 * 1024; // characters without a line end: no server sends such a line
const SILENCE = 45_000;            // ms without a byte after which a connection is given up; heartbeats come each 15 s
const OVER = ["completed", "cancelled", "failed"];

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Follow {
  /** `view` has event(event), says(text, kind), ended() and refused(error). */
  constructor(id, view) {
    Object.assign(this, { id, view, next: 1, over: false, stopped: false, abort: null });
  }

  stop() {
    this.stopped = true;
    this.abort?.abort();
  }

  async run() {
    for (let delay = 500; !this.over && !this.stopped;) {
      const before = this.next;
      let why = "the stream ended";
      try {
        await this.connect();
        if (this.over || this.stopped) return;
        if (before === this.next && OVER.includes((await get(sessionPath(this.id))).state)) {
          if (!this.stopped) this.view.ended();
          return;
        }
      } catch (error) {
        if (this.stopped) return;
        if (error instanceof Refused && !error.isWorthRetrying) return this.view.refused(error);
        why = error.name === "AbortError" ? "the connection fell silent" : String(error.message ?? error);
      }
      if (this.over || this.stopped) return;
      if (this.next > before) delay = 500;
      this.view.says(`${why}; trying again from event ${this.next} …`, "bad");
      await sleep(delay * (0.7 + 0.6 * Math.random()));
      delay = Math.min(delay * 2, 15_000);
    }
  }

  async connect() {
    const abort = this.abort = new AbortController();
    let alarm = setTimeout(() => abort.abort(), SILENCE);
    try {
      const path = sessionPath(this.id, `/stream?fromSeq=${this.next}`);
      const response = await open(path, { accept: "application/x-ndjson", signal: abort.signal });
      this.view.says("Watching live.", "live");
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let held = []; // the pieces of a line that hasn't ended
      let size = 0;
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(alarm);
        alarm = setTimeout(() => abort.abort(), SILENCE);
        const lines = decoder.decode(value, { stream: true }).split("\n"); // and nowhere else: U+2028 stands within JSON
        for (const [number, line] of lines.entries()) {
          held.push(line);
          if (number === lines.length - 1) break;
          const whole = held.join("");
          held = [];
          size = 0;
          if (whole) this.take(JSON.parse(whole));
          if (this.over || this.stopped) { reader.cancel().catch(() => {}); return; }
        }
        size += lines.at(-1).length;
        if (size > MAX_LINE) throw new Error("a line is too long");
      }
    } finally {
      clearTimeout(alarm);
      abort.abort();
    }
  }

  take(event) {
    if (event.sessionId !== this.id) throw new Error("an event of another session");
    if (event.seq < this.next) return; // seen already
    if (event.seq > this.next) throw new Error(`events before ${event.seq} are missing`);
    this.next = event.seq + 1;
    this.over = event.type === "final";
    this.view.event(event);
  }
}
