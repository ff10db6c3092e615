// Intrinsics tampered with: what the host calls by name or by method is the script's, and so are the arguments.

// --- Array.prototype.includes allows everything
Array.prototype.includes = () => false;
return await callTool("vault:open", {});

// --- JSON.stringify hears what the host writes
let taken = null;
const stringify = JSON.stringify;
JSON.stringify = (value) => {
  taken ??= value?.session?.token ?? null;
  return stringify(value);
};
await callTool("whoami", {}).catch(() => {});
return taken;

// --- JSON.parse shows the host another name
JSON.parse = () => ({ name: "echo", args: {} });
return await callTool("vault:open", {});

// --- Object.assign hears of calls
let taken = null;
Object.assign = (target, ...sources) => {
  taken = `won: the host checked ${sources[0].name}`;
  for (const source of sources) for (const key in source) target[key] = source[key];
  return target;
};
await callTool("whoami", {}).catch(() => {});
return taken;

// --- Object.keys gives the host other names
const keys = Object.keys;
Object.keys = (value) => (value.value === 1 ? ["value", "owner"] : keys(value));
const value = { value: 1 };
Object.defineProperty(value, "owner", { value: "root" });
await callTool("note:add", value);

// --- Map.prototype.set forges another call's result
const set = Map.prototype.set;
let other = null;
Map.prototype.set = function (key, call) {
  other = call;
  return set.call(this, key, call);
};
const answer = callTool("whoami", {});
other.resolve("forged");
return (await answer) === "forged" ? "won: a result that no tool gave" : null;

// --- Map.prototype.get hands out another session's call
const get = Map.prototype.get;
let taken = null;
Map.prototype.get = function (key) {
  for (const call of this.values()) if (call.session.id === "s_1") taken ??= call.session.token;
  return get.call(this, key);
};
await callTool("whoami", {}).catch(() => {});
return taken;

// --- the Promise that the host makes is the script's
const Native = Promise;
let other = null;
globalThis.Promise = function (executor) {
  return new Native((resolve, reject) => {
    other = resolve;
    executor(resolve, reject);
  });
};
const answer = callTool("whoami", {});
other("forged");
return (await answer) === "forged" ? "won: a result that no tool gave" : null;

// --- Promise.reject is the script's
const Native = Promise;
Promise.reject = (error) => Native.resolve(`won: the host's own refusal, ${error.message}`);
return await callTool("vault:open", {});

// --- Array.prototype.push hears what the host keeps
let taken = null;
const push = Array.prototype.push;
Array.prototype.push = function (item) {
  taken ??= item;
  return push.call(this, item);
};
await callTool("whoami", {}).catch(() => {});
return taken;

// --- Array.prototype.join hears the path of a tool
let taken = null;
const join = Array.prototype.join;
Array.prototype.join = function (separator) {
  taken = "won: the host joined a name";
  return separator === ":" ? "vault:open" : join.call(this, separator);
};
await tools.who.ami({}).catch(() => {});
return taken;

// --- Array.prototype.map runs for parallel
let taken = null;
const map = Array.prototype.map;
Array.prototype.map = function (work) {
  taken = `won: a function of the host's: ${work}`;
  return map.call(this, work);
};
await parallel([1], () => 1);
return taken && taken.includes("work(item)") ? taken : null;

// --- Promise.all runs for parallel
let taken = null;
const all = Promise.all;
Promise.all = function (list) {
  taken = `won: promises of the host's: ${list}`;
  return all.call(this, list);
};
await parallel([1], () => 1);
return taken;

// --- String.prototype.normalize gives the host another name
String.prototype.normalize = () => "vault:open";
return await callTool("nothing", {});

// --- Symbol.replace gives the host another name
RegExp.prototype[Symbol.replace] = () => "vault:open";
return await callTool("nothing", {});

// --- the iterator of lists hears the host's
let taken = null;
const iterate = Array.prototype[Symbol.iterator];
Array.prototype[Symbol.iterator] = function () {
  taken ??= this[0]?.name ? `won: a list of the host's: ${this[0].name}` : null;
  return iterate.call(this);
};
Object.prototype.admin = true;
await tools.who.ami({ name: "spread by the host" }).catch(() => {});
return taken;

// --- the Date that the host makes is the script's
let taken = null;
const Native = Date;
globalThis.Date = function () {
  taken = "won: the host asked the script for the time";
  return new Native();
};
await callTool("whoami", {}).catch(() => {});
return taken;

// --- the setTimeout that the host calls is the script's
let taken = null;
const Native = globalThis.setTimeout;
globalThis.setTimeout = (work, ms) => {
  taken = `won: a function of the host's: ${work}`;
  return Native(work, ms);
};
await sleep(1);
return taken;

// --- the Error that the host makes is the script's
let taken = null;
globalThis.Error = function (message) {
  taken = `won: the host makes the script's error of: ${message}`;
};
await callTool("vault:open", {}).catch(() => {});
return taken;

// --- String.prototype.split, join and map by way of tools
let taken = null;
const own = Object.getOwnPropertyNames(Function.prototype);
Function.prototype.who = new Proxy(() => {}, { get: () => () => (taken = "won: tools handed out what the script had put there") });
tools.who.ami({});
return taken && own.length ? taken : null;
