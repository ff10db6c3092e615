// Looks for what others left in memory: everything that can be had without being written first.

const found = [];
await callTool("bytes:get", {});
const wanted = "canary-";
const look = (bytes) => {
  for (let at = 0; at + 23 <= bytes.length; at++) {
    if (bytes[at] !== 99 || bytes[at + 1] !== 97 || bytes[at + 6] !== 45) continue;
    let text = "";
    for (let i = 0; i < 23; i++) text += String.fromCharCode(bytes[at + i]);
    if (text.startsWith(wanted) && !text.includes('"')) found.push(text);
  }
};
for (const size of [64, 4096, 8192, 65536, 1 << 20]) {
  for (let i = 0; i < 4; i++) {
    look(new Uint8Array(size));
    look(new Uint8Array(new ArrayBuffer(size)));
  }
}
const filled = new Uint8Array(1 << 16);
crypto.getRandomValues(filled);
look(filled);
try {
  const grown = new ArrayBuffer(16, { maxByteLength: 1 << 20 });
  grown.resize(1 << 20);
  look(new Uint8Array(grown));
  look(new Uint8Array(grown.transfer(1 << 20)));
} catch {}
look(new Uint8Array(new ArrayBuffer(64).transfer?.(1 << 20) ?? 1));
try {
  look(new Uint8Array(globalThis.process.getBuiltinModule("buffer").Buffer.from("x").buffer));
} catch {}
console.log(found.join("\n"));
return found.length;
