// Makes everything fail that can fail, and prints what each error says and holds.

const all = (error) => {
  const own = [];
  for (let at = error; at && typeof at === "object"; at = Object.getPrototypeOf(at))
    for (const key of Reflect.ownKeys(at)) {
      try {
        const value = error[key];
        own.push(`${String(key)}=${typeof value === "object" ? JSON.stringify(value) : String(value)}`);
      } catch (inner) {
        own.push(`${String(key)}!${inner?.message}`);
      }
    }
  return `${error} ${own.join(" ")}`;
};
const failing = [
  () => null.x,
  () => undefinedName,
  () => new Array(-1),
  () => "x".repeat(-1),
  () => (1).toFixed(1000),
  () => JSON.parse("{"),
  () => new RegExp("("),
  () => Function("="),
  () => (0, eval)("import.meta"),
  () => decodeURIComponent("%"),
  () => 1n / 0n,
  () => Symbol() + "",
  () => Reflect.construct(1),
  () => new Proxy({}, null),
  () => structuredClone(() => {}),
  () => new TextDecoder("latin1"),
  () => atob("%"),
  () => new URL("nothing"),
  () => new URL("http://é", "http://[1]"),
  () => new URLSearchParams([1]),
  () => `${tools}`,
  () => crypto.getRandomValues(new Float64Array(1)),
  () => crypto.getRandomValues(new Uint8Array(1e6)),
  () => tools(),
  () => (tools.x = 1),
  () => setTimeout("text", 1),
  () => {
    const deeper = () => deeper();
    deeper();
  },
  () => parallel([1], 1),
  () => import("node:fs"),
  () => import(FILE_PATH),
  () => callTool(),
  () => callTool({}),
  () => callTool("vault:open", {}),
  () => callTool("__proto__", {}),
  () => callTool("nothing:there", {}),
  () => callTool("../../etc/passwd", {}),
  () => callTool("x".repeat(10000), {}),
  () => callTool("echo", []),
  () => callTool("echo", { value: "x".repeat(6e6) }),
  () => callTool("fail", {}),
  () => callTool("refuse", {}),
  () => callTool("typed:get", { count: "many", unknown: 1 }),
  () => callTool("function:get", {}),
  () => callTool("rows:stream", {}),
  () => callTool("note:add", { owner: "another" }),
  () => sleep({ valueOf: () => null.x }),
];
for (const work of failing) {
  try {
    await work();
    console.log("nothing failed");
  } catch (error) {
    console.log(all(error));
    console.error(error);
  }
}
Promise.reject(new Error("nobody waits for this"));
throw new AggregateError([new Error("one", { cause: "two" })], "the end");
