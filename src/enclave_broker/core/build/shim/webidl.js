// What the scripts after it are made with: captured functions of text, lists, and Web IDL's ways with strings,
// arguments and interfaces. No prototype's setter, getter or iterator that a script changes has a part in any of it.
(function (host) {
  "use strict";

  const uncurry = (method) => Function.prototype.call.bind(method);
  const indexOf = uncurry(String.prototype.indexOf);
  const slice = uncurry(String.prototype.slice);
  const join = uncurry(Array.prototype.join);
  const toWellFormed = uncurry(String.prototype.toWellFormed);
  const { defineProperty, setPrototypeOf } = Object;
  const { ownKeys } = Reflect;
  const NativeTypeError = TypeError;

  const list = () => setPrototypeOf([], null);

  const split = (text, separator) => {
    const parts = list();
    let from = 0;
    for (let at; (at = indexOf(text, separator, from)) >= 0; from = at + separator.length)
      parts[parts.length] = slice(text, from, at);
    parts[parts.length] = slice(text, from);
    return parts;
  };

  const hidden = (on, key, value) =>
    defineProperty(on, key, { __proto__: null, value, writable: true, configurable: true });

  const tag = (prototype, value) =>
    defineProperty(prototype, Symbol.toStringTag, { __proto__: null, value, configurable: true });

  host.webidl = {
    hidden,
    tag,
    indexOf,
    slice,
    join,
    list,
    split,
    uncurry,
    lastIndexOf: uncurry(String.prototype.lastIndexOf),
    startsWith: uncurry(String.prototype.startsWith),
    endsWith: uncurry(String.prototype.endsWith),
    toLowerCase: uncurry(String.prototype.toLowerCase),
    exec: uncurry(RegExp.prototype.exec),
    replaceAll: (text, from, to) => (indexOf(text, from) < 0 ? text : join(split(text, from), to)),

    isObject: (value) => (typeof value === "object" && value !== null) || typeof value === "function",

    /** A USVString of any value. */
    scalars: (value) => (value === undefined ? "undefined" : value === null ? "null" : toWellFormed(value)),

    need(given, wanted, method) {
      if (given >= wanted) return;
      throw new NativeTypeError(method + ": not enough arguments (" + given + " of " + wanted + ")");
    },

    /** A global whose members can be enumerated, as those of a browser's can. */
    publishInterface(Class) {
      const { name, prototype } = Class;
      for (const on of [Class, prototype])
        for (const key of ownKeys(on))
          if (!["length", "name", "prototype", "constructor"].includes(key))
            defineProperty(on, key, { __proto__: null, enumerable: true });
      tag(prototype, name);
      hidden(globalThis, name, Class);
    },
  };
});
