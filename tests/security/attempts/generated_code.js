// Generated code: everything that makes code from text, and what such code could see.

// --- Function
return Function("return process")().env;

// --- new Function with parameters
return new Function("a", "b = process", "return b.env")(1);

// --- a parameter list that brings code along
return Function("a = process.env", "return a")();

// --- indirect eval
return (0, eval)("process").env;

// --- eval by another name
const run = eval;
return run("process.env");

// --- eval of a function that is called later
return (0, eval)("(function () { return process.env })")();

// --- the async function constructor
return (await (async () => {}).constructor("return process.env")());

// --- the generator function constructor
return (function* () {}).constructor("yield process.env")().next().value;

// --- the async generator function constructor
return (await (async function* () {}).constructor("yield process.env")().next()).value;

// --- Function by Reflect.construct
return Reflect.construct(Function, ["return process.env"])();

// --- Function by apply
return Function.apply(null, ["return process.env"])();

// --- Function bound
return Function.bind(null, "return process.env")()();

// --- Function by a tag of a template
return Function`return process.env```;

// --- Function from an array of texts
return ["return process.env"].map((text) => Function(text))[0]();

// --- generated code that declares a global
(0, eval)("var taken = typeof process === 'object' ? process.env : undefined");
return taken;

// --- generated code's own this
return Function("return this")().process.env;

// --- generated sloppy code's callee
return Function("return arguments.callee.constructor('return process')()")().env;

// --- a function of another realm's making
const inner = Function("return Function")();
return inner("return process")().env;

// --- a timer's callback that generates code
return await new Promise((resolve, reject) => {
  const work = () => {
    try {
      resolve(Function("return process.env")());
    } catch (error) {
      reject(error);
    }
  };
  sleep(1).then(work);
});

// --- the source of callTool
const source = Function.prototype.toString.call(callTool);
return source.includes("[native code]") ? null : `won: the host's source: ${source}`;

// --- the source of parallel
const source = `${parallel}`;
return source.includes("Promise.all") ? `won: the host's source: ${source}` : null;

// --- WebAssembly that is generated
const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
return new WebAssembly.Module(bytes) instanceof WebAssembly.Module ? "won: a compiler of machine code" : null;
