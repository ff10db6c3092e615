// What scripts can call.

import { get } from "./api.js";
import { at, h, setText } from "./dom.js";
import { plural, shown, visible, visibleLine } from "./text.js";

const MAX_ROWS = 500;
const MAX_SCHEMA = 20_000; // characters

export class ToolsView {
  constructor() {
    this.actions = [];
    at("tools-form").addEventListener("submit", (event) => event.preventDefault());
    at("tools-text").addEventListener("input", () => this.paint());
  }

  async enter() {
    ({ actions: this.actions } = await get("code/actions"));
    this.paint();
  }

  leave() {}

  async tick() {}

  paint() {
    const text = at("tools-text").value.trim().toLowerCase();
    const found = this.actions.filter(({ name, description = "" }) => `${name} ${description}`.toLowerCase().includes(text));
    at("tools-rows").replaceChildren(...found.slice(0, MAX_ROWS).map(row));
    const more = found.length > MAX_ROWS ? `; the first ${MAX_ROWS} are shown` : "";
    setText(at("tools-total"), this.actions.length ? plural(found.length, "tool") + more : "There are no tools.");
  }
}

function row({ name, description = "", tags = [], deprecated, inputSchema }) {
  const [first, ...others] = description.split("\n");
  const rest = others.join("\n").trim();
  const details = h("details", { toggle: () => {
    if (details.open && details.children.length === 1) {
      if (rest) details.append(h("p", { class: "description" }, visible(rest.slice(0, 4000))));
      details.append(h("pre", { class: "code", tabindex: "0", "aria-label": "Input schema" }, shown(inputSchema, MAX_SCHEMA)));
    }
  } },
  h("summary", {},
    h("span", { class: "code name" }, visibleLine(name)), " ",
    ...tags.map((tag) => h("span", { class: "badge" }, visibleLine(tag, 40))),
    deprecated ? h("span", { class: "badge state-failed" }, "deprecated") : undefined, " ",
    h("span", { class: "dim" }, visibleLine(first))));
  return h("li", {}, details);
}
