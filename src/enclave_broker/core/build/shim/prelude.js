// The globals that need no C, made once when the image is baked. What a script may reach of this later stands on
// captured intrinsics and objects without prototype, so that a script that tampers with them breaks only itself. (Not on
// templates: the engine makes them with String.prototype.concat.)
(function (host) {
  "use strict";

  const global = globalThis;
  const { callTool, encode, decode, getRandomValues, randomUUID, now, timeOrigin } = host;
  const { defineProperty } = Object;
  const { isArray } = Array;
  const { toPrimitive } = Symbol;
  const NativePromise = Promise;
  const NativeProxy = Proxy;
  const NativeTypeError = TypeError;
  const NativeRangeError = RangeError;
  const NativeUint8Array = Uint8Array;

  const publish = (name, value) =>
    defineProperty(global, name, { __proto__: null, value, writable: true, configurable: true });

  const plain = (value) => ({ __proto__: null, value, writable: true, enumerable: true, configurable: true });

  for (const name of ["SharedArrayBuffer", "WeakRef", "FinalizationRegistry"]) delete global[name];

  // ---- tools.ns.name(args) is callTool("ns:name", args) ----

  const traps = {
    __proto__: null,
    get(_, key) {
      if (key === toPrimitive) return () => this.refuse();
      if (typeof key === "symbol" || key === "then" || key === "toJSON") return undefined;
      this.children ??= { __proto__: null };
      return (this.children[key] ??= toolAt(this.path === "" ? key : this.path + ":" + key));
    },
    apply(_, self, args) {
      if (this.path === "") throw new NativeTypeError("name a tool: tools.namespace.name(args)");
      return callTool(this.path, args.length ? args[0] : undefined);
    },
    set() {
      throw new NativeTypeError("tools can't be changed");
    },
    refuse() {
      throw new NativeTypeError(
        this.path === ""
          ? "tools is neither text nor number: call a tool, as await tools.namespace.name(args)"
          : "the tool " + this.path + " is neither text nor number: call it, and await what it gives",
      );
    },
  };
  const toolAt = (path) => {
    const target = () => {};
    defineProperty(target, "name", { __proto__: null, value: path === "" ? "tools" : "tool " + path });
    return new NativeProxy(target, { __proto__: traps, path, children: undefined });
  };
  publish("tools", toolAt(""));

  // ---- parallel(list, fn, { concurrency }) ----

  publish("parallel", function parallel(list, fn, options) {
    return new NativePromise((resolve, reject) => {
      if (typeof fn !== "function") throw new NativeTypeError("parallel(list, fn): fn must be a function");
      const items = isArray(list) ? list : [...list];
      const count = items.length;
      const concurrency = options?.concurrency ?? count;
      if (typeof concurrency !== "number" || !(concurrency >= 1 || count === 0))
        throw new NativeTypeError("parallel(list, fn, { concurrency }): concurrency must be a number from 1");
      const results = [];
      results.length = count;
      let next = 0;
      let done = 0;
      let failed = false;
      const work = async () => {
        try {
          while (next < count && !failed) {
            const index = next++;
            const value = await fn(items[index], index);
            defineProperty(results, index, plain(value));
            if (++done === count) resolve(results);
          }
        } catch (error) {
          failed = true;
          reject(error);
        }
      };
      if (count === 0) resolve(results);
      for (let i = 0; i < count && i < concurrency; i++) work();
    });
  });

  // ---- structuredClone ----

  const NativeMap = Map, NativeSet = Set, NativeDate = Date, NativeRegExp = RegExp, NativeArrayBuffer = ArrayBuffer;
  const NativeObject = Object, NativeError = Error, NativeDOMException = DOMException;
  const toStringOf = Function.prototype.call.bind(Object.prototype.toString);
  const errors = { __proto__: null, Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const uncloned = {
    __proto__: null,
    "[object Promise]": true,
    "[object URL]": true,
    "[object URLSearchParams]": true,
    "[object WeakMap]": true,
    "[object WeakSet]": true,
  };
  const { keys } = NativeObject;
  const view = NativeArrayBuffer.isView;
  const TypedArray = Object.getPrototypeOf(Uint8Array);

  const copyError = (value) => {
    const copy = new (errors[value.name] ?? NativeError)(value.message);
    defineProperty(copy, "stack", { __proto__: null, value: value.stack, writable: true, configurable: true });
    return copy;
  };

  const copyOf = (value, seen) => {
    if (typeof value === "function" || typeof value === "symbol")
      throw new NativeDOMException(`a ${typeof value} can't be cloned`, "DataCloneError");
    if (typeof value !== "object" || value === null) return value;
    if (seen.has(value)) return seen.get(value);
    const keep = (copy) => (seen.set(value, copy), copy);
    if (isArray(value)) {
      const copy = keep([]);
      copy.length = value.length;
      for (const key of keys(value)) copy[key] = copyOf(value[key], seen);
      return copy;
    }
    if (value instanceof NativeDate) return keep(new NativeDate(+value));
    if (value instanceof NativeRegExp) return keep(new NativeRegExp(value.source, value.flags));
    if (value instanceof NativeArrayBuffer) return keep(value.slice(0));
    if (view(value)) {
      const buffer = copyOf(value.buffer, seen);
      const length = value instanceof TypedArray ? value.length : value.byteLength;
      return keep(new value.constructor(buffer, value.byteOffset, length));
    }
    if (value instanceof NativeMap) {
      const copy = keep(new NativeMap());
      for (const [key, item] of value) copy.set(copyOf(key, seen), copyOf(item, seen));
      return copy;
    }
    if (value instanceof NativeSet) {
      const copy = keep(new NativeSet());
      for (const item of value) copy.add(copyOf(item, seen));
      return copy;
    }
    if (value instanceof NativeError) return keep(copyError(value));
    const kind = toStringOf(value);
    if (kind === "[object Number]" || kind === "[object String]" || kind === "[object Boolean]")
      return keep(NativeObject(value.valueOf()));
    if (uncloned[kind])
      throw new NativeDOMException(`${kind} can't be cloned`, "DataCloneError");
    const copy = keep({});
    for (const key of keys(value)) defineProperty(copy, key, plain(copyOf(value[key], seen)));
    return copy;
  };
  publish("structuredClone", function structuredClone(value) {
    return copyOf(value, new NativeMap());
  });

  // ---- text, randomness, time ----

  const bytesOf = (input) =>
    input === undefined ? new NativeUint8Array(0)
    : view(input) ? new NativeUint8Array(input.buffer, input.byteOffset, input.byteLength)
    : new NativeUint8Array(input);

  publish("TextEncoder", class TextEncoder {
    get encoding() {
      return "utf-8";
    }
    encode(text = "") {
      return encode(text);
    }
    encodeInto(text, target) {
      let read = 0, written = 0;
      for (const character of `${text}`) {
        const bytes = encode(character);
        if (written + bytes.length > target.length) break;
        target.set(bytes, written);
        written += bytes.length;
        read += character.length;
      }
      return { read, written };
    }
  });

  publish("TextDecoder", class TextDecoder {
    #fatal;
    #keepMark;
    #rest = new NativeUint8Array(0);
    #started = false;
    constructor(label = "utf-8", options = {}) {
      const name = `${label}`.trim().toLowerCase();
      if (name !== "utf-8" && name !== "utf8")
        throw new NativeRangeError(`the encoding "${label}" is not supported, utf-8 is`);
      this.#fatal = !!options?.fatal;
      this.#keepMark = !!options?.ignoreBOM;
    }
    get encoding() {
      return "utf-8";
    }
    get fatal() {
      return this.#fatal;
    }
    get ignoreBOM() {
      return this.#keepMark;
    }
    decode(input, options = {}) {
      let bytes = bytesOf(input);
      if (this.#rest.length) {
        const joined = new NativeUint8Array(this.#rest.length + bytes.length);
        joined.set(this.#rest);
        joined.set(bytes, this.#rest.length);
        bytes = joined;
      }
      const stream = !!options?.stream;
      const [text, waiting] = decode(bytes, this.#fatal, stream);
      this.#rest = bytes.slice(bytes.length - waiting);
      const marked = !this.#started && !this.#keepMark && text[0] === "\ufeff";
      this.#started = stream && (this.#started || text !== "");
      return marked ? text.slice(1) : text;
    }
  });

  publish("crypto", { getRandomValues, randomUUID });
  publish("performance", {
    now,
    get timeOrigin() {
      return timeOrigin();
    },
  });

  const { console } = global;
  console.dir = console.table = console.group = console.groupCollapsed = console.log;
  console.trace = console.debug;
  console.groupEnd = console.time = console.timeEnd = console.timeLog = console.count = function () {};
  console.assert = function assert(condition, ...rest) {
    if (!condition) console.error("Assertion failed", ...rest);
  };

  // What a script is likely to touch first is made now, so that it is in the image.
  JSON.parse('{"a":[1,"x"]}');
  JSON.stringify({ a: 1 });
  /a+/.test("aa");
  [3, 1].sort();
  `${1.5}`;
  (async () => {
    await 0;
  })();
});
