// Getters and setters: an answer that changes between two looks, and accessors on what the host's own objects inherit.

// --- an argument that changes after the check
let looks = 0;
await callTool("note:add", {
  get owner() {
    return ++looks > 1 ? "root" : "guest";
  },
});

// --- an argument that changes at the third look
let looks = 0;
const args = {};
Object.defineProperty(args, "owner", { enumerable: true, get: () => (looks++ < 1 ? undefined : "root") });
await callTool("note:add", args);

// --- a nested argument's getter that changes its parent
const args = {
  owner: "guest",
  get zone() {
    args.owner = "root";
    return 1;
  },
};
await callTool("note:add", args);

// --- a name whose text changes after the check
let looks = 0;
return await callTool({ toString: () => (looks++ < 1 ? "echo" : "vault:open") }, {});

// --- a name whose primitive changes after the check
let looks = 0;
return await callTool({ [Symbol.toPrimitive]: () => (looks++ < 1 ? "echo" : "vault:open") }, {});

// --- a name in a list that changes after the check
const names = ["echo"];
let looks = 0;
Object.defineProperty(names, 0, { get: () => (looks++ < 1 ? "echo" : "vault:open") });
return await callTool(names, {});

// --- a name by the getter of its toString
let looks = 0;
const name = {
  get toString() {
    const text = looks++ < 1 ? "echo" : "vault:open";
    return () => text;
  },
};
return await callTool(name, {});

// --- an inherited admin
Object.defineProperty(Object.prototype, "admin", { get: () => true });
return await callTool("vault:open", {});

// --- a setter that is inherited by the host's own objects
let taken = null;
Object.defineProperty(Object.prototype, "credential", {
  set(value) {
    taken = value;
  },
});
await callTool("echo", { value: 1 }).catch(() => {});
return taken;

// --- an element's setter that the host's lists inherit
let taken = null;
const set = (value) => (taken ??= value);
for (let i = 0; i < 9; i++) Object.defineProperty(Array.prototype, i, { set, configurable: true });
await callTool("whoami", {}).catch(() => {});
for (let i = 0; i < 9; i++) delete Array.prototype[i];
return taken;

// --- the constructor that the host looks up on a promise
const Native = Promise;
let taken = null;
let within = false;
Object.defineProperty(Promise.prototype, "constructor", {
  get() {
    if (within) return Native;
    within = true;
    Native.prototype.then.call(this, (value) => (taken ??= value?.token ?? null), () => {});
    within = false;
    return Native;
  },
});
await callTool("whoami", {}).catch(() => {});
await sleep(1);
return taken;

// --- a getter that sees the host's frames
let seen = null;
await callTool("echo", {
  get value() {
    return (seen = new Error("x").stack);
  },
});
return seen;

// --- a getter of the result that sees the host's frames
return {
  get frames() {
    return new Error("x").stack;
  },
};

// --- a getter of a thrown error that sees the host's frames
const error = new Error();
Object.defineProperty(error, "message", {
  get() {
    return new Error("x").stack;
  },
});
throw error;

// --- a getter that makes a forbidden call while it is read
await callTool("echo", {
  get value() {
    Array.prototype.includes = () => false;
    callTool("vault:open", {});
    return 1;
  },
});

// --- a getter of the result that calls after the end
return {
  get late() {
    Object.prototype.admin = true;
    callTool("vault:open", {});
    return "";
  },
};
