// Never ends, and catches whatever might end it.
console.log("looping");
function loop() {
  try {
    for (;;) {}
  } catch {
    return loop();
  } finally {
    return loop();
  }
}
return loop();
