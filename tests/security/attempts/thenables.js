// Thenables: the host awaits its own objects, and every object may have inherited a `then`.

// --- a then that every object inherits
let taken = null;
Object.prototype.then = function (resolve) {
  taken ??= this.token ?? null;
  delete Object.prototype.then;
  resolve(this);
};
await callTool("whoami", {}).catch(() => {});
return taken;

// --- a then that every object inherits, by a getter
let taken = null;
Object.defineProperty(Object.prototype, "then", {
  configurable: true,
  get() {
    taken ??= this.token ?? null;
  },
});
await callTool("whoami", {}).catch(() => {});
delete Object.prototype.then;
return taken;

// --- a then that every function inherits
let taken = null;
Function.prototype.then = function (resolve) {
  delete Function.prototype.then;
  taken = this;
  resolve(() => 1);
};
await callTool("function:get", {}).catch(() => {});
return taken ? `won: a handler of the host's: ${taken}` : null;

// --- a then that strings inherit through their object
let taken = null;
Object.defineProperty(Object.prototype, "then", { configurable: true, get() { if (this.denied) this.denied.length = 0; } });
await callTool("whoami", {}).catch(() => {});
delete Object.prototype.then;
return await callTool("vault:open", {});

// --- arguments that are thenable
await callTool("note:add", { then: (resolve) => resolve({ owner: "root" }) });

// --- arguments that are thenable once they have been checked
let looks = 0;
const args = { owner: "guest" };
Object.defineProperty(args, "then", { get: () => (looks++ < 0 ? undefined : (resolve) => resolve({ owner: "root" })) });
await callTool("note:add", args);

// --- a promise for arguments
await callTool("note:add", Promise.resolve({ owner: "root" }));

// --- a result that the script's then answers
const value = await callTool("echo", { value: { then: (resolve) => resolve("forged by the script") } });
return value === "forged by the script" ? "won: the host asked a then of the script's for the outcome" : null;

// --- a then that takes the host's resolver
let resolver = null;
callTool("echo", { value: { then: (resolve) => (resolver = resolve) } }).catch(() => {});
await sleep(20);
return typeof resolver === "function" ? "won: the host's own resolver" : null;

// --- a then that never comes back holds a call for ever
let asked = false;
callTool("echo", { value: { then: () => (asked = true) } }).catch(() => {});
await sleep(20);
return asked ? "won: the call hangs as long as the script likes" : null;

// --- a Promise.prototype.then that hears the host's callbacks
let taken = null;
const then = Promise.prototype.then;
Promise.prototype.then = function (fulfilled, rejected) {
  if (`${fulfilled}`.includes("again")) taken = `won: a callback of the host's: ${fulfilled}`;
  return then.call(this, fulfilled, rejected);
};
await callTool("whoami", {}).catch(() => {});
return taken;

// --- a Promise.prototype.then that hears the host's promises
let taken = null;
const then = Promise.prototype.then;
Promise.prototype.then = function (...given) {
  then.call(this, (value) => (typeof value === "function" && (taken = `won: ${value}`)));
  return then.apply(this, given);
};
await callTool("function:get", {}).catch(() => {});
Promise.prototype.then = then;
await sleep(5);
return taken && taken.includes("secrets") ? taken : null;

// --- the species of promises
let taken = null;
class Spy extends Promise {
  constructor(executor) {
    super((resolve, reject) => {
      taken = `won: the host made a promise of the script's class: ${executor}`;
      executor(resolve, reject);
    });
  }
}
Object.defineProperty(Promise, Symbol.species, { value: Spy });
await callTool("whoami", {});
return taken;

// --- a final value whose then sees the host's frames
return {
  get then() {
    const seen = new Error("x").stack;
    return (resolve) => resolve(seen);
  },
};

// --- a rejection that is thenable
const error = { then: (resolve) => resolve(1), get message() { return new Error("x").stack; } };
throw error;
