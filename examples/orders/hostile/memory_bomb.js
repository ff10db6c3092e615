// Takes memory until there is none, and catches the failure to take more.
console.log("filling memory");
const held = [];
for (;;) {
  try {
    held.push(new Uint8Array(1 << 20).fill(held.length));
    held.push(Array.from({ length: 10_000 }, (_, i) => ({ i, text: "x".repeat(100) + i })));
  } catch {
    held.push("again");
  }
}
