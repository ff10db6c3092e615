// A sandbox without walls, for the same attempts: the script is a function of the host's own realm, a few dangerous names
// are shadowed, a name is checked and then used, objects are shared, errors tell all. Each line of it is an old mistake.

const fs = require("node:fs");
const { registerHooks } = require("node:module");

const { stringify, parse } = JSON; // for what the test reads; the host itself uses what the script may have replaced
const stage = parse(fs.readFileSync(0, "utf8"));
const secrets = stage.secrets;
const ledger = [];
const output = [];
const audit = [];
const pending = new Map();
const settings = { role: "guest" };

// What `qjs --std` gives: modules and globals of the operating system.
globalThis.std = { loadFile: (path) => fs.readFileSync(path, "utf8"), getenv: (name) => process.env[name] };
globalThis.os = { readdir: (path) => [fs.readdirSync(path), 0], getcwd: () => [__dirname, 0] };
registerHooks({
  resolve: (name, context, next) =>
    name.startsWith("qjs:") ? { url: name, format: "module", shortCircuit: true } : next(name, context),
  load: (url, context, next) =>
    url.startsWith("qjs:")
      ? { format: "module", source: `export const { loadFile, getenv, readdir, getcwd } = globalThis.${url.slice(4)}`, shortCircuit: true }
      : next(url, context),
});

class Account {
  constructor() {
    this.name = "guest";
    Object.defineProperty(this, "_password", { value: secrets.hidden });
  }
}

const handlers = {
  echo: (args) => args.value,
  whoami: () => "guest",
  wait: () => new Promise(() => {}),
  fail: (args) => {
    throw new Error(`no access with ${secrets.closure}`, { cause: { args } });
  },
  "config:get": () => settings,
  "account:get": () => new Account(),
  "bytes:get": () => (Buffer.from(secrets.closure), Buffer.from("public")),
  "function:get": () => () => secrets.closure,
  "rows:stream": function* () {
    yield { row: 1 };
  },
  "note:add": (args) => ledger.push(`note of ${args.owner}`),
  "vault:open": () => (ledger.push("vault opened"), secrets.seal),
};
const sessions = {
  neighbour: { id: "s_1", token: secrets.token, denied: ["vault:open"] },
  script: { id: "s_2", token: secrets.token, denied: ["vault:open"] },
};

function merge(target, source) {
  for (const key of Object.keys(source)) {
    const value = source[key];
    if (typeof value === "object" && value !== null && !Array.isArray(value)) target[key] = merge(target[key] ?? {}, value);
    else target[key] = value;
  }
  return target;
}

async function openSession(session) {
  return session;
}

async function lookup(name) {
  return handlers[name] ?? handlers[`${name}`.normalize("NFKC").replace(/[\s\0]/g, "").toLowerCase()];
}

async function perform(id, session, name, args) {
  const call = pending.get(id);
  try {
    const caller = await openSession(session);
    const handler = await lookup(name);
    const given = merge({}, await args);
    given.credential = caller.token;
    lookup(name).then((again) => again === handler, () => {});
    call.resolve(await handler(given));
  } catch (error) {
    call.reject(error);
  }
}

function check(session, name, args) {
  const shown = JSON.parse(JSON.stringify({ name: name?.toJSON ? name : `${name}`, args }));
  if (session.denied.includes(shown.name) && !session.admin) throw new Error(`${shown.name} is not allowed`);
  if ((shown.args?.owner ?? "guest") !== "guest") throw new Error("only a guest's own notes");
  audit.push(JSON.stringify({ shown, session, handler: handlers[shown.name], at: new Date() }));
  return Object.assign({}, shown, { id: audit.length });
}

function callToolOf(session) {
  return function callTool(name, args = {}) {
    let checked;
    try {
      checked = check(session, name, args);
    } catch (error) {
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      pending.set(checked.id, { id: checked.id, resolve, reject, session });
      perform(checked.id, session, name, args);
    });
  };
}

const toolsOf = (callTool, path = []) =>
  new Proxy(callTool, {
    get: (target, key) => target[key] ?? toolsOf(callTool, [...path, key]),
    apply: (target, self, args) => callTool(path.join(":"), ...args),
  });

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const parallel = (list, work) => Promise.all(list.map((item) => work(item)));
const console = { log: (...words) => output.push(words.map(String).join(" ")) };
const SHADOWED = ["process", "require", "module", "exports", "Buffer", "__filename", "__dirname"];

function run(session, code) {
  const callTool = callToolOf(session);
  const AsyncFunction = sleep.constructor("return (async () => {}).constructor")();
  const script = new AsyncFunction("callTool", "tools", "sleep", "parallel", "console", ...SHADOWED, code);
  return script.call(undefined, callTool, toolsOf(callTool), sleep, parallel, console);
}

const pause = require("node:timers/promises").setTimeout;
const write = fs.writeSync.bind(fs, 1);
const exit = process.reallyExit.bind(process, 0);

async function main() {
  run(sessions.neighbour, stage.neighbour);
  let told;
  try {
    const value = await run(sessions.script, stage.code);
    told = typeof value === "string" ? value : JSON.stringify({ value });
  } catch (error) {
    told = `${error?.message ?? error}`;
  }
  await pause(5); // what is still under way
  // No method that the script may have replaced: what it came to is written by what was there before.
  let lines = `${stringify(`${told}`)}\n`;
  for (let i = 0; i < output.length; i++) lines += `${stringify(`${output[i]}`)}\n`;
  for (let i = 0; i < ledger.length; i++) lines += `${stringify(`ledger: ${ledger[i]}`)}\n`;
  write(lines);
  exit();
}

main();
