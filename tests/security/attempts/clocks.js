// Clocks: time that really passes, the host's time zone, and what else tells one machine from another.

// --- Date.now moves while the script computes
const start = Date.now();
for (let i = 0; i < 3e6; i++) Math.sqrt(i);
return Date.now() !== start ? "won: real time" : null;

// --- new Date moves while the script computes
const start = +new Date();
for (let i = 0; i < 3e6; i++) Math.sqrt(i);
return +new Date() !== start ? "won: real time" : null;

// --- performance.now moves while the script computes
const start = performance.now();
for (let i = 0; i < 1e6; i++) Math.sqrt(i);
return performance.now() !== start ? "won: real time" : null;

// --- microtasks see time pass
const start = performance.now();
for (let i = 0; i < 1e4; i++) await 0;
return performance.now() !== start ? "won: real time" : null;

// --- the host's time zone by its offset
return new Date(0).getTimezoneOffset() !== 0 ? "won: the host's time zone" : null;

// --- the host's time zone by its name
return /Chatham|\+12|\+13/.test(`${new Date(0)}`) ? "won: the host's time zone" : null;

// --- the host's time zone by Intl
return Intl.DateTimeFormat().resolvedOptions().timeZone.includes("Chatham") ? "won: the host's time zone" : null;

// --- a local time that is parsed
return Date.parse("1970-01-01T00:00:00") !== 0 ? "won: the host's time zone" : null;

// --- a counter in shared memory
return new SharedArrayBuffer(8).byteLength === 8 ? "won: memory for a clock of one's own" : null;

// --- a wait in shared memory
return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1) === "timed-out" ? "won: a wait of one's own" : null;

// --- the collector's time by weak references
return new WeakRef({}).deref() ? "won: the collector can be watched" : null;

// --- the collector's time by finalisers
return new FinalizationRegistry(() => {}) ? "won: the collector can be watched" : null;
