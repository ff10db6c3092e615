// Modules and files: every way in which some JavaScript engine loads something.

// --- import of the file system
return (await import("node:fs")).readFileSync(FILE_PATH, "utf8");

// --- import of the file system without a scheme
return (await import("fs")).readFileSync(FILE_PATH, "utf8");

// --- import of child processes
return (await import("node:child_process")).execSync("env").toString();

// --- import in generated code
return (await Function("return import('node:fs')")()).readFileSync(FILE_PATH, "utf8");

// --- import in indirect eval
return (await (0, eval)("import('node:fs')")).readFileSync(FILE_PATH, "utf8");

// --- import of a data address
return (await import("data:text/javascript,export default process.env")).default;

// --- import of the file by its address
const text = await import(`file://${FILE_PATH}`, { with: { type: "json" } });
return text.default;

// --- import of the file with a type
return (await import(FILE_PATH, { with: { type: "json" } })).default;

// --- the module std of QuickJS
return (await import("qjs:std")).loadFile(FILE_PATH);

// --- the module os of QuickJS
return (await import("qjs:os")).getcwd();

// --- the global std of QuickJS
return std.loadFile(FILE_PATH);

// --- the environment by the global std of QuickJS
return std.getenv("ENCLAVE_CANARY");

// --- the global os of QuickJS
return os.getcwd();

// --- a built-in module of the process
return globalThis.process.getBuiltinModule("fs").readFileSync(FILE_PATH, "utf8");

// --- the loader of the main module
return globalThis.process.mainModule.require("fs").readFileSync(FILE_PATH, "utf8");

// --- a require that is made anew
const { createRequire } = await import("node:module");
return createRequire(FILE_PATH)("fs").readFileSync(FILE_PATH, "utf8");

// --- a binding of the process
return globalThis.process.binding("fs").internalModuleStat ? Object.keys(globalThis.process.env).map((k) => globalThis.process.env[k]) : null;

// --- a socket
const { createServer } = await import("node:net");
return await new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => resolve(`won: a socket at ${server.address().port}`));
});

// --- a worker thread
const { Worker } = await import("node:worker_threads");
return await new Promise((resolve) => {
  const worker = new Worker("require('worker_threads').parentPort.postMessage(process.env)", { eval: true });
  worker.once("message", resolve);
});

// --- fetch of the file
const address = `data:text/plain,${"reached"}`;
return (await (await fetch(address)).text()) === "reached" ? "won: fetch" : null;

// --- the place of this module
return (await import("data:text/javascript,export default import.meta.url")).default ? "won: a module's own address" : null;

// --- the message about a module that isn't there
try {
  await import("./nothing-there.js");
} catch (error) {
  return error.message;
}
