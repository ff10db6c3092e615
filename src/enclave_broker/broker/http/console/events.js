// The list of a run's events: the newest of them, by type, each opened to be read whole.

import { h, roving, setText } from "./dom.js";
import { clip, count, json, plural, visible, visibleLine } from "./text.js";

const MAX_EVENTS = 2000;       // that are kept; older ones go
const MAX_CHARACTERS = 4000;   // that are kept of one event's payload
const MAX_SNIPPET = 200;       // that are shown of a closed one
const PAINT = 100;             // ms: what comes meanwhile is shown together
const AT_END = 40;             // pixels from the end at which a list still follows what comes
const QUIET = new Set(["heartbeat", "tool_progress"]); // not shown until asked for

export class EventList {
  constructor(list, types, total) {
    Object.assign(this, { list, types, total });
    this.settled = roving(list, "summary");
    this.clear();
  }

  clear() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.kept = [];
    this.queue = [];
    this.seen = 0;
    this.counts = new Map();
    this.tools = new Map(); // the tool of a call, for what is said of it later
    this.hidden = new Set(QUIET);
    this.list.replaceChildren();
    this.types.replaceChildren();
    setText(this.total, "");
  }

  add(event) {
    this.seen++;
    const type = visibleLine(event.type, 40);
    this.counts.set(type, (this.counts.get(type) ?? 0) + 1);
    const payload = event.payload ?? {};
    this.queue.push({ seq: event.seq, type, snippet: this.snippet(event.type, payload),
      text: clip(json(payload), MAX_CHARACTERS), element: null });
    if (this.queue.length > MAX_EVENTS) this.queue.shift();
    this.timer ??= setTimeout(() => this.paint(), PAINT);
  }

  /** The start of what matters most. */
  snippet(type, payload) {
    const { callId, toolName } = payload;
    if (type === "tool_call") {
      this.tools.set(callId, toolName);
      if (this.tools.size > MAX_EVENTS) this.tools.delete(this.tools.keys().next().value);
    }
    const said = {
      stdout: () => String(payload.chunk).replace(/\n$/, ""),
      log: () => `${payload.level}: ${payload.message}`,
      tool_call: () => `${toolName} ${json(payload.args)}`,
      tool_progress: () => `${this.tools.get(callId) ?? callId} ${payload.phase}`,
      tool_result_applied: () => this.tools.get(callId) ?? callId,
    };
    const text = String(Object.hasOwn(said, type) ? said[type]() : json(payload));
    return visibleLine(text.slice(0, MAX_SNIPPET)) + (text.length > MAX_SNIPPET ? "…" : "");
  }

  paint() {
    this.timer = undefined;
    const follows = this.list.scrollTop + this.list.clientHeight >= this.list.scrollHeight - AT_END;
    this.kept.push(...this.queue.splice(0));
    for (const gone of this.kept.splice(0, Math.max(0, this.kept.length - MAX_EVENTS))) gone.element?.remove();
    const added = [];
    for (const event of this.kept.slice(this.firstUnpainted())) {
      event.painted = true;
      if (!this.hidden.has(event.type)) added.push(event.element = row(event));
    }
    this.list.append(...added);
    this.chips();
    this.settled();
    const dropped = this.seen - this.kept.length;
    setText(this.total, dropped ? `${count(this.seen)}, the oldest ${count(dropped)} aren't kept here` : count(this.seen));
    if (follows) this.list.scrollTop = this.list.scrollHeight;
  }

  firstUnpainted() {
    let first = this.kept.length;
    while (first > 0 && !this.kept[first - 1].painted) first--;
    return first;
  }

  chips() {
    for (const [type, number] of [...this.counts].slice(0, 30)) {
      let chip = [...this.types.children].find((each) => each.dataset.type === type);
      if (!chip) {
        chip = h("button", { type: "button", "aria-pressed": String(!this.hidden.has(type)), "data-type": type,
          click: () => this.toggle(type, chip) });
        this.types.append(chip);
      }
      setText(chip, `${type} ${count(number)}`);
    }
  }

  toggle(type, chip) {
    if (!this.hidden.delete(type)) this.hidden.add(type);
    chip.setAttribute("aria-pressed", String(!this.hidden.has(type)));
    for (const event of this.kept) {
      event.element = this.hidden.has(event.type) ? null : event.element ?? row(event);
    }
    this.list.replaceChildren(...this.kept.flatMap((event) => event.element ?? []));
    this.settled();
    this.list.scrollTop = this.list.scrollHeight;
  }
}

function row({ seq, type, snippet, text }) {
  const details = h("details", { toggle: () => {
    if (details.open && details.children.length === 1) details.append(h("pre", { class: "code" }, visible(text)));
  } },
  h("summary", { tabindex: "-1" },
    h("span", { class: "seq" }, String(seq)),
    h("span", { class: `type type-${/^[a-z_]+$/.test(type) ? type : "other"}` }, type),
    h("span", { class: "snippet" }, snippet)));
  return h("li", {}, details);
}

/** What a run has printed: the end of it. */
export class Output {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.parts = [];
    this.size = 0;
    this.dropped = 0;
    this.element.replaceChildren();
  }

  add(text) {
    const MOST = 200_000; // characters that are kept
    const part = text.slice(-MOST);
    this.dropped += text.length - part.length;
    this.parts.push(part);
    this.size += part.length;
    while (this.size > MOST) {
      const over = this.size - MOST;
      const [first] = this.parts;
      if (first.length <= over) this.parts.shift();
      else this.parts[0] = first.slice(over);
      const gone = Math.min(first.length, over);
      this.size -= gone;
      this.dropped += gone;
    }
    this.timer ??= setTimeout(() => this.paint(), PAINT);
  }

  paint() {
    this.timer = undefined;
    const { element } = this;
    const follows = element.scrollTop + element.clientHeight >= element.scrollHeight - AT_END;
    const before = this.dropped ? `… (${plural(this.dropped, "character")} before this)\n` : "";
    element.textContent = before + visible(this.parts.join(""));
    if (follows) element.scrollTop = element.scrollHeight;
  }
}
