// The global URL, on records of url_parser.js, and what the engine itself shows of a URL or URLSearchParams.
(function (host) {
  "use strict";

  const { parse, serialise, copy, originOf, hostOf, setters } = host.urls;
  const { linked, flush, reload, textOf } = host.params;
  const { slice, scalars, need, publishInterface } = host.webidl;
  const NativeTypeError = TypeError;
  const SHOWN_CHARACTERS = 200;

  const shown = (text) => (text.length > SHOWN_CHARACTERS ? slice(text, 0, SHOWN_CHARACTERS) + "…" : text);

  const parseOrThrow = (input, base, what) => {
    try {
      return parse(input, base);
    } catch (reason) {
      if (typeof reason !== "string") throw reason;
      throw new NativeTypeError("Invalid " + what + ": " + shown(input) + " (" + reason + ")");
    }
  };

  const parseOrNull = (input, base) => {
    input = scalars(input);
    base = base === undefined ? base : scalars(base);
    try {
      return parse(input, base === undefined ? null : parse(base, null));
    } catch (reason) {
      if (typeof reason !== "string") throw reason;
      return null;
    }
  };

  const set = (url, name, value) => {
    const text = scalars(value);
    try {
      setters[name](url, text);
    } catch (reason) {
      if (typeof reason !== "string") throw reason;
    }
  };

  let made;

  class URL {
    #url;
    #params;

    constructor(url, base = undefined) {
      need(arguments.length, 1, "URL");
      const input = scalars(url);
      const from = base === undefined ? null : parseOrThrow(scalars(base), null, "base URL");
      this.#url = parseOrThrow(input, from, "URL");
    }

    static {
      made = (record) => {
        const url = new URL("data:");
        url.#url = record;
        return url;
      };
      host.textOf = (object) => (#url in object ? serialise(object.#read()) : textOf(object));
    }

    static canParse(url, base = undefined) {
      need(arguments.length, 1, "URL.canParse");
      return parseOrNull(url, base) !== null;
    }
    static parse(url, base = undefined) {
      need(arguments.length, 1, "URL.parse");
      const record = parseOrNull(url, base);
      return record === null ? null : made(record);
    }

    /** The record, with what the script has done to its parameters. */
    #read() {
      if (this.#params !== undefined) flush(this.#params);
      return this.#url;
    }

    get href() {
      return serialise(this.#read());
    }
    set href(value) {
      copy(this.#url, parseOrThrow(scalars(value), null, "URL"));
      if (this.#params !== undefined) reload(this.#params);
    }
    get origin() {
      return originOf(this.#url);
    }
    get protocol() {
      return this.#url.scheme + ":";
    }
    set protocol(value) {
      set(this.#url, "protocol", value);
    }
    get username() {
      return this.#url.username;
    }
    set username(value) {
      set(this.#url, "username", value);
    }
    get password() {
      return this.#url.password;
    }
    set password(value) {
      set(this.#url, "password", value);
    }
    get host() {
      return hostOf(this.#url);
    }
    set host(value) {
      set(this.#url, "host", value);
    }
    get hostname() {
      return this.#url.host ?? "";
    }
    set hostname(value) {
      set(this.#url, "hostname", value);
    }
    get port() {
      return "" + (this.#url.port ?? "");
    }
    set port(value) {
      set(this.#url, "port", value);
    }
    get pathname() {
      return this.#url.path;
    }
    set pathname(value) {
      set(this.#url, "pathname", value);
    }
    get search() {
      const { query } = this.#read();
      return query ? "?" + query : "";
    }
    set search(value) {
      set(this.#url, "search", value);
      if (this.#params !== undefined) reload(this.#params);
    }
    get searchParams() {
      return (this.#params ??= linked(this.#url));
    }
    get hash() {
      const { fragment } = this.#url;
      return fragment ? "#" + fragment : "";
    }
    set hash(value) {
      set(this.#url, "hash", value);
    }
    toString() {
      return serialise(this.#read());
    }
    toJSON() {
      return serialise(this.#read());
    }
  }

  publishInterface(URL);
  new URL("https://a/?b=c").searchParams.get("b"); // so that what the first one makes is in the image
});
