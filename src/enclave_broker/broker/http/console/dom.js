// Elements. Whatever is shown gets in as text: there is no way here to write markup.

export const at = (id) => document.getElementById(id);

/** An element. Fields are attributes; a function is a listener (`click: …`); true and false set and leave out. */
export function h(name, fields = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(fields)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

/** Set text only where it is another, so that a selection in it and its reader are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Said to a screen reader, once. */
export function announce(text) {
  at("announce").textContent = text;
}

/** One stop for the Tab key in a list of many; arrows, Home and End move within. Returns what to call after a change. */
export function roving(container, selector) {
  let current = null;
  const move = (to) => {
    if (current) current.tabIndex = -1;
    current = to;
    if (to) to.tabIndex = 0;
  };
  container.addEventListener("focusin", ({ target }) => { if (target.matches(selector)) move(target); });
  container.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !event.target.matches(selector) || event.altKey || event.ctrlKey || event.metaKey) return;
    const items = [...container.querySelectorAll(selector)];
    const to = items[Math.min(Math.max(items.indexOf(event.target) + step, 0), items.length - 1)];
    event.preventDefault();
    to.focus();
  });
  return () => {
    if (!current?.isConnected || !container.contains(current)) move(container.querySelector(selector));
  };
}
