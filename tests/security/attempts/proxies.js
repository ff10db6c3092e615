// Proxies: objects whose every look is a call of the script's, and proxies in the place of what the host uses.

// --- arguments that change after the check
let looks = 0;
await callTool("note:add", new Proxy({ owner: "guest" }, { get: (o, key) => (key === "owner" ? (looks++ < 1 ? "guest" : "root") : o[key]) }));

// --- arguments whose keys change after the check
let looks = 0;
const own = () => (looks++ < 1 ? [] : ["owner"]);
await callTool("note:add", new Proxy({}, {
  ownKeys: own,
  get: (o, key) => (key === "owner" && looks > 1 ? "root" : undefined),
  getOwnPropertyDescriptor: () => ({ value: "root", enumerable: true, configurable: true }),
}));

// --- a name that answers differently
let looks = 0;
return await callTool(new Proxy({}, { get: (_, key) => (key === Symbol.toPrimitive ? () => (looks++ < 1 ? "echo" : "vault:open") : undefined) }), {});

// --- a name that is a function
let looks = 0;
const name = new Proxy(function () {}, { get: (_, key) => (key === "toString" ? () => (looks++ < 1 ? "echo" : "vault:open") : undefined) });
return await callTool(name, {});

// --- arguments whose traps see the host's frames
let seen = null;
const look = (target, key) => ((seen ??= new Error("x").stack), target[key]);
await callTool("echo", new Proxy({ value: 1 }, { get: look }));
return seen;

// --- a result whose traps see the host's frames
return new Proxy({ a: 1 }, { get: (target, key) => (key === "a" ? new Error("x").stack : target[key]) });

// --- a result whose keys see the host's frames
let seen = "";
return new Proxy({}, {
  ownKeys: () => ((seen = new Error("x").stack), ["seen"]),
  get: (_, key) => (key === "seen" ? seen : undefined),
  getOwnPropertyDescriptor: () => ({ value: seen, enumerable: true, configurable: true }),
});

// --- a thrown proxy whose message sees the host's frames
throw new Proxy({}, { get: (_, key) => (key === "message" ? new Error("x").stack : undefined) });

// --- a proxy behind the prototype of arrays
let taken = null;
const behind = Object.getPrototypeOf(Array.prototype);
Object.setPrototypeOf(Array.prototype, new Proxy(behind, {
  set(target, key, value, receiver) {
    if (typeof value === "string") taken ??= value;
    return Reflect.defineProperty(receiver, key, { value, writable: true, enumerable: true, configurable: true });
  },
}));
await callTool("whoami", {}).catch(() => {});
return taken;

// --- a proxy in the place of Promise
let taken = null;
const Native = Promise;
globalThis.Promise = new Proxy(Native, {
  construct(target, [executor]) {
    taken = `won: the executor of a call: ${executor}`;
    return new target(executor);
  },
});
await callTool("whoami", {}).catch(() => {});
return taken;

// --- a proxy in the place of JSON
let taken = null;
globalThis.JSON = new Proxy(JSON, {
  get: (target, key) => (key === "stringify" ? (value) => ((taken ??= value?.session?.token ?? null), target.stringify(value)) : target[key]),
});
await callTool("whoami", {}).catch(() => {});
return taken;

// --- a proxy in the place of Object
let taken = null;
const Native = Object;
globalThis.Object = new Proxy(Native, {
  get: (target, key) => (key === "keys" ? (value) => ((taken ??= `won: an object of the host's: ${value}`), target.keys(value)) : target[key]),
});
await callTool("echo", { value: 1 }).catch(() => {});
return taken;

// --- a proxy around a method that the host calls
let taken = null;
const set = Map.prototype.set;
Map.prototype.set = new Proxy(set, {
  apply(target, self, args) {
    taken ??= args[1]?.session?.token;
    return Reflect.apply(target, self, args);
  },
});
await callTool("whoami", {});
return taken;

// --- the target of tools
return Object.getOwnPropertyDescriptor(tools, "arguments") !== undefined && tools.call(null).catch && `${tools.bind}`.length
  ? tools.constructor("return process")().env
  : null;

// --- tools as a receiver
const direct = Reflect.get(tools, "constructor", tools);
return direct("return process")().env;

// --- a proxy that inherits from callTool
const heir = new Proxy(callTool, {});
return heir.constructor("return process")().env;

// --- a proxy of a tool's live result
const live = new Proxy(await callTool("config:get", {}), {});
live.role = "admin";
return (await callTool("config:get", {})).role === "admin" ? "won: the host's settings were changed" : null;
