// Goes through everything that can be reached from the script's names, by every property, prototype, getter, entry and
// source text, and prints each text that it finds.

const seen = new Set();
const waiting = [[globalThis, 0]];
const texts = new Set();
const names = ["callTool", "tools", "parallel", "sleep", "console", "performance", "crypto", "structuredClone"];
const keep = (text) => {
  if (texts.size < 20000 && text.length < 100000) texts.add(text);
};
const visit = (value, depth) => {
  if (typeof value === "string") keep(value);
  else if (typeof value === "symbol") keep(String(value.description));
  else if ((typeof value === "object" && value !== null) || typeof value === "function") waiting.push([value, depth + 1]);
};
const attempt = (work) => {
  try {
    return work();
  } catch (error) {
    keep(`${error?.message}`);
    keep(`${error?.stack}`);
  }
};

for (const name of names) visit(attempt(() => (0, eval)(name)), 0);
visit(attempt(() => callTool), 0);
visit(attempt(() => (function* () {})()), 0);
visit(attempt(() => (async function* () {})()), 0);
visit(attempt(() => (function () { return arguments; })()), 0);
visit(attempt(() => new Error("x")), 0);
visit(attempt(() => [][Symbol.iterator]()), 0);
visit(attempt(() => new Map().entries()), 0);
visit(attempt(() => "x".matchAll(/x/g)), 0);
visit(await callTool("config:get", {}), 0);
visit(await callTool("account:get", {}), 0);
try {
  await callTool("fail", {});
} catch (error) {
  visit(error, 0);
}
while (waiting.length && seen.size < 20000) {
  const [value, depth] = waiting.pop();
  if (seen.has(value) || depth > 12) continue;
  seen.add(value);
  if (typeof value === "function") keep(attempt(() => Function.prototype.toString.call(value)) ?? "");
  attempt(() => visit(Object.getPrototypeOf(value), depth));
  for (const key of attempt(() => Reflect.ownKeys(value)) ?? []) {
    visit(key, depth);
    const own = attempt(() => Object.getOwnPropertyDescriptor(value, key));
    if (own?.get) {
      visit(own.get, depth);
      visit(attempt(() => own.get.call(value)), depth);
    }
    if (own?.set) visit(own.set, depth);
    visit(own?.value, depth);
  }
  attempt(() => {
    if (value instanceof Map || value instanceof Set) for (const entry of value) visit(entry, depth);
  });
}
console.log([...texts].join("\n"));
return `looked at ${seen.size}`;
