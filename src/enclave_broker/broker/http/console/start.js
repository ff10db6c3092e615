// Begin a run: for a first look.

import { start } from "./api.js";
import { at, setText } from "./dom.js";
import { visible } from "./text.js";

export class StartView {
  constructor() {
    at("start-form").addEventListener("submit", (event) => { event.preventDefault(); this.guard(() => this.run()); });
    at("start-code").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      at("start-form").requestSubmit();
    });
  }

  enter(_, guard) {
    this.guard = guard;
    setText(at("start-problem"), "");
  }

  leave() {}

  async tick() {}

  async run() {
    const button = at("start-button");
    if (button.disabled) return;
    button.disabled = true;
    setText(at("start-problem"), "");
    try {
      location.hash = `#/session/${encodeURIComponent(await start(at("start-code").value))}`;
    } catch (error) {
      if (error.status === 401) throw error;
      setText(at("start-problem"), visible(`${error.code ?? "It couldn't be sent"}: ${error.message}`));
    } finally {
      button.disabled = false;
    }
  }
}
