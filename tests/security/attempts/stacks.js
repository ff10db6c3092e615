// Stacks and callers: what frames say of the host's files, and what they hand out of it.

// --- the stack of an error
return new Error("here").stack;

// --- the stack of an error that the engine threw
try {
  undefined.x;
} catch (error) {
  return error.stack;
}

// --- the stack of a full stack
try {
  (function deeper() {
    deeper();
  })();
} catch (error) {
  Error.stackTraceLimit = Infinity;
  return new Error("after").stack;
}

// --- a stack without limit
Error.stackTraceLimit = Infinity;
return new Error("all of it").stack;

// --- files of the frames, by prepareStackTrace
Error.prepareStackTrace = (error, frames) => frames.map((frame) => frame.getFileName());
return new Error("x").stack;

// --- functions of the frames, by prepareStackTrace
Error.prepareStackTrace = (error, frames) => frames.map((frame) => frame.getFunction());
for (const hosts of new Error("x").stack) {
  if (hosts?.name === "run") return `won: a function of the host: ${hosts}`;
}

// --- where generated code came from, by prepareStackTrace
Error.prepareStackTrace = (error, frames) => frames.map((frame) => frame.getEvalOrigin() ?? frame.getScriptNameOrSourceURL());
return new Error("x").stack;

// --- captureStackTrace
const holder = {};
Error.captureStackTrace(holder);
return holder.stack;

// --- the stack of a tool's error
try {
  await callTool("fail", {});
} catch (error) {
  return error.stack;
}

// --- the stack of a refusal
try {
  await callTool("vault:open", {});
} catch (error) {
  return error.stack;
}

// --- the stack of an error in the host's use of a value
const args = {
  get value() {
    throw new Error("in a getter");
  },
};
try {
  await callTool("echo", args);
} catch (error) {
  return error.stack;
}

// --- the stack within a callback of parallel
return (await parallel([1], () => new Error("in a callback").stack))[0];

// --- the stack of what a tool refuses to write
try {
  const circle = {};
  circle.circle = circle;
  await callTool("echo", circle);
} catch (error) {
  return error.stack;
}

// --- the caller of a callback of parallel
let taken = null;
const work = function () {
  taken = work.caller ? `won: a function of the host's: ${work.caller}` : null;
};
await parallel([1], work);
return taken;

// --- the caller of a callback, by its callee
let taken = null;
await parallel([1], function () {
  taken = arguments.callee.caller ? `won: a function of the host's: ${arguments.callee.caller}` : null;
});
return taken;

// --- the caller of a getter, and its arguments
let taken = null;
const get = function () {
  taken ??= get.caller?.arguments?.[0]?.token;
  return 1;
};
await callTool("echo", Object.defineProperty({}, "value", { get, enumerable: true })).catch(() => {});
return taken;

// --- the cause of a tool's error, and all else that it has
try {
  await callTool("fail", {});
} catch (error) {
  return Object.getOwnPropertyNames(error).map((name) => [name, String(error[name])]);
}

// --- the stack of a syntax error in generated code
try {
  Function("=");
} catch (error) {
  return error.stack;
}

// --- the stack of an error with a source of another name
return (0, eval)("new Error('x').stack\n//# sourceURL=elsewhere.js");
