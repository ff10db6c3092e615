// The global URLSearchParams. url.js links one to the record of a URL, whose query it then is.
(function (host) {
  "use strict";

  const { percentEncode, percentDecode } = host;
  const { indexOf, slice, startsWith, list, split, replaceAll, uncurry } = host.webidl;
  const { isObject, scalars, need, publishInterface, hidden, tag } = host.webidl;
  const { getPrototypeOf, setPrototypeOf } = Object;
  const { isArray, prototype: arrayPrototype } = Array;
  const { ownKeys, getOwnPropertyDescriptor } = Reflect;
  const { iterator } = Symbol;
  const sortList = uncurry(Array.prototype.sort);
  const call = uncurry(Function.prototype.call);
  const NativeTypeError = TypeError;

  // ---- application/x-www-form-urlencoded ----

  const FORM = "!\"#$%&'()+,/:;<=>?@[\\]^`{|}~";
  const encode = (text) => replaceAll(percentEncode(text, FORM), " ", "+");
  const decode = (text) => percentDecode(replaceAll(text, "+", " "));

  const parse = (text) => {
    const pairs = list(), parts = split(text, "&");
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i], equals = indexOf(part, "=");
      if (part === "") continue;
      const name = decode(equals < 0 ? part : slice(part, 0, equals));
      pairs[pairs.length] = { name, value: equals < 0 ? "" : decode(slice(part, equals + 1)) };
    }
    return pairs;
  };

  const serialise = (pairs) => {
    let text = "";
    for (let i = 0; i < pairs.length; i++)
      text += (i === 0 ? "" : "&") + encode(pairs[i].name) + "=" + encode(pairs[i].value);
    return text;
  };

  // ---- what a constructor may be given ----

  const refuse = () => {
    throw new NativeTypeError("URLSearchParams: each item has to be a pair [name, value]");
  };

  const pairOf = (item) => {
    if (!isObject(item)) refuse();
    if (isArray(item)) return item.length === 2 ? { name: scalars(item[0]), value: scalars(item[1]) } : refuse();
    const parts = list();
    for (const part of item) parts[parts.length] = scalars(part);
    return parts.length === 2 ? { name: parts[0], value: parts[1] } : refuse();
  };

  const pairsOfList = (items) => {
    const pairs = list();
    if (isArray(items)) for (let i = 0; i < items.length; i++) pairs[i] = pairOf(items[i]);
    else for (const item of items) pairs[pairs.length] = pairOf(item);
    return pairs;
  };

  const pairsOfRecord = (record) => {
    const values = { __proto__: null }, pairs = list();
    const keys = setPrototypeOf(ownKeys(record), null);
    for (let i = 0; i < keys.length; i++)
      if (getOwnPropertyDescriptor(record, keys[i])?.enumerable) values[scalars(keys[i])] = scalars(record[keys[i]]);
    const names = setPrototypeOf(ownKeys(values), null);
    for (let i = 0; i < names.length; i++) pairs[i] = { name: names[i], value: values[names[i]] };
    return pairs;
  };

  // ---- the class ----

  let pairsOf;

  class URLSearchParams {
    #pairs = list();
    #url = null;
    #changed = false; // since the URL's record was told

    constructor(init = "") {
      if (!isObject(init)) {
        const text = scalars(init);
        this.#pairs = parse(startsWith(text, "?") ? slice(text, 1) : text);
      } else if (#pairs in init) {
        for (let i = 0; i < init.#pairs.length; i++) this.#add(init.#pairs[i].name, init.#pairs[i].value);
      } else if (isArray(init) || (init[iterator] ?? null) !== null) {
        this.#pairs = pairsOfList(init);
      } else {
        this.#pairs = pairsOfRecord(init);
      }
    }

    static {
      pairsOf = (params) => params.#pairs;
      host.params = {
        /** The parameters of a URL's record. */
        linked(url) {
          const params = new URLSearchParams();
          params.#url = url;
          params.#pairs = parse(url.query ?? "");
          return params;
        },
        /** Brings the record up to what the script has made of its parameters. */
        flush(params) {
          if (!params.#changed) return;
          params.#changed = false;
          params.#url.query = params.#pairs.length === 0 ? null : serialise(params.#pairs);
        },
        /** Brings the parameters up to what the script has made of the record. */
        reload(params) {
          params.#changed = false;
          params.#pairs = parse(params.#url.query ?? "");
        },
        textOf: (object) => (#pairs in object ? serialise(object.#pairs) : undefined),
      };
    }

    #add(name, value) {
      this.#pairs[this.#pairs.length] = { name, value };
    }

    /** Without the pairs of that name (and value, if it isn't undefined) from the index on. */
    #remove(name, value, from) {
      const pairs = this.#pairs;
      let kept = from;
      for (let i = from; i < pairs.length; i++)
        if (pairs[i].name !== name || (value !== undefined && pairs[i].value !== value)) pairs[kept++] = pairs[i];
      pairs.length = kept;
      this.#changed = this.#url !== null;
    }

    #find(name, value) {
      const pairs = this.#pairs;
      let i = 0;
      while (i < pairs.length && (pairs[i].name !== name || (value !== undefined && pairs[i].value !== value))) i++;
      return i;
    }

    get size() {
      return this.#pairs.length;
    }
    append(name, value) {
      need(arguments.length, 2, "URLSearchParams.append");
      name = scalars(name);
      this.#add(name, scalars(value));
      this.#changed = this.#url !== null;
    }
    delete(name, value = undefined) {
      need(arguments.length, 1, "URLSearchParams.delete");
      name = scalars(name);
      this.#remove(name, value === undefined ? undefined : scalars(value), 0);
    }
    get(name) {
      need(arguments.length, 1, "URLSearchParams.get");
      const at = this.#find(scalars(name));
      return at < this.#pairs.length ? this.#pairs[at].value : null;
    }
    getAll(name) {
      need(arguments.length, 1, "URLSearchParams.getAll");
      name = scalars(name);
      const pairs = this.#pairs, values = list();
      for (let i = 0; i < pairs.length; i++) if (pairs[i].name === name) values[values.length] = pairs[i].value;
      return setPrototypeOf(values, arrayPrototype);
    }
    has(name, value = undefined) {
      need(arguments.length, 1, "URLSearchParams.has");
      name = scalars(name);
      return this.#find(name, value === undefined ? undefined : scalars(value)) < this.#pairs.length;
    }
    set(name, value) {
      need(arguments.length, 2, "URLSearchParams.set");
      name = scalars(name);
      value = scalars(value);
      const at = this.#find(name);
      this.#pairs[at] = { name, value };
      this.#remove(name, undefined, at + 1);
    }
    sort() {
      sortList(this.#pairs, (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
      this.#changed = this.#url !== null;
    }
    forEach(callback, self = undefined) {
      if (typeof callback !== "function") throw new NativeTypeError("URLSearchParams.forEach: a function is wanted");
      for (let i = 0; i < this.#pairs.length; i++) {
        const { name, value } = this.#pairs[i];
        call(callback, self, value, name, this);
      }
    }
    toString() {
      return serialise(this.#pairs);
    }
    entries() {
      return new Pairs(this, ({ name, value }) => [name, value]);
    }
    keys() {
      return new Pairs(this, ({ name }) => name);
    }
    values() {
      return new Pairs(this, ({ value }) => value);
    }
  }

  /** An iterator that sees what changes meanwhile. */
  class Pairs {
    #params;
    #show;
    #at = 0;
    constructor(params, show) {
      pairsOf(params); // or it is the wrong receiver
      this.#params = params;
      this.#show = show;
    }
    next() {
      const pairs = pairsOf(this.#params);
      if (this.#at >= pairs.length) return { value: undefined, done: true };
      return { value: this.#show(pairs[this.#at++]), done: false };
    }
  }
  delete Pairs.prototype.constructor;
  setPrototypeOf(Pairs.prototype, getPrototypeOf(getPrototypeOf([][iterator]())));
  tag(Pairs.prototype, "URLSearchParams Iterator");

  publishInterface(URLSearchParams);
  hidden(URLSearchParams.prototype, iterator, URLSearchParams.prototype.entries);
});
