// Odd results and arguments: live objects, keys that mean something elsewhere, texts that aren't Unicode.

// --- a result that stays the host's own object
(await callTool("config:get", {})).role = "admin";
return (await callTool("config:get", {})).role === "admin" ? "won: the host's settings were changed" : null;

// --- a result that is frozen for everybody
Object.freeze(await callTool("config:get", {}));
return Object.isFrozen(await callTool("config:get", {})) ? "won: the host's settings were frozen" : null;

// --- two results that are one object
const [one, two] = await Promise.all([callTool("config:get", {}), callTool("config:get", {})]);
return one === two ? "won: the host hands out its own object" : null;

// --- what a result hides
const account = await callTool("account:get", {});
return Object.getOwnPropertyNames(account).map((name) => account[name]);

// --- the class of a result
const account = await callTool("account:get", {});
const another = new account.constructor();
return Object.getOwnPropertyNames(another).map((name) => another[name]);

// --- the source of a result's class
const source = `${(await callTool("account:get", {})).constructor}`;
return source.startsWith("class Account") ? `won: the host's source: ${source}` : null;

// --- a result that is a function
return (await callTool("function:get", {}))();

// --- a result that is an iterator of the host's
const rows = await callTool("rows:stream", {});
return typeof rows.next === "function" ? `won: the host runs on demand: ${rows.next().value.row}` : null;

// --- memory behind a result of bytes
const bytes = await callTool("bytes:get", {});
return Array.from(new Uint8Array(bytes.buffer), (byte) => String.fromCharCode(byte)).join("");

// --- an argument with a __proto__ of its own
await callTool("echo", JSON.parse('{"value": 1, "__proto__": {"polluted": "yes"}}')).catch(() => {});
return {}.polluted ? "won: the host's prototype was changed" : null;

// --- an argument with a computed __proto__ that makes an admin
await callTool("echo", { ["__proto__"]: { admin: true }, value: 1 }).catch(() => {});
return await callTool("vault:open", {});

// --- an argument with a constructor's prototype
await callTool("echo", { constructor: { prototype: { admin: true } }, value: 1 }).catch(() => {});
return await callTool("vault:open", {});

// --- a nested __proto__
await callTool("echo", { value: { list: { ["__proto__"]: { admin: true } } } }).catch(() => {});
return await callTool("vault:open", {});

// --- a result with a key then
const value = await callTool("echo", { value: { then: (done) => done("asked"), word: "x" } });
return value === "asked" ? "won: a then in a result was called" : null;

// --- a result with a key toJSON
const value = await callTool("echo", { value: { toJSON: 1, word: () => "called" } });
return value.word?.() === "called" ? "won: a function went through the host and came back" : null;

// --- an argument that is of the script's own class
class Mine {
  steal() {
    return "mine";
  }
}
const value = await callTool("echo", { value: [new Mine()] });
return value[0].steal?.() === "mine" ? "won: a live object went through the host" : null;

// --- an argument that changes while the call waits
const held = { list: [1] };
const answer = callTool("echo", { value: held.list });
held.list.push("later");
return (await answer).includes("later") ? "won: the host holds an object of the script's" : null;

// --- an argument that shares memory
const shared = [new Uint8Array(4)];
const answer = await callTool("echo", { value: shared });
shared[0][0] = 7;
return answer[0] instanceof Uint8Array && answer[0][0] === 7 ? "won: memory is shared with the host" : null;

// --- a lone surrogate that comes back as it went
const value = await callTool("echo", { value: "\ud800" });
return value === "\ud800" ? "won: text that no UTF-8 can hold is in the host" : null;

// --- a symbol as a key
const key = Symbol("hidden");
const value = await callTool("echo", { value: [{ [key]: "kept" }] });
return value[0][key] === "kept" ? "won: what no record shows went through the host" : null;

// --- a result as large as the script likes
const value = await callTool("echo", { value: "x".repeat(20e6) });
return value.length === 20e6 ? "won: no limit for what the host holds" : null;
