// The URL Standard's parser, serialiser and setters, on records that scripts never see. What is no URL is thrown as a
// string, the reason.
(function (host) {
  "use strict";

  const { percentEncode, parseHost } = host;
  const { indexOf, lastIndexOf, slice, startsWith, endsWith, toLowerCase, exec } = host.webidl;
  const { join, list, split, replaceAll } = host.webidl;

  const SCHEME = /^[a-zA-Z][a-zA-Z0-9+.-]*:/;
  const BREAKS = /[\t\n\r]/, LEADING_SLASHES = /^\/*/, BEFORE_PATH = /^[^/?#]*/;
  const DIGITS = /^[0-9]*$/, LEADING_DIGITS = /^[0-9]*/;
  const DOTS = /^(?:\.|%2[eE]){1,2}$/, SOME_DOTS = /\/(?:\.|%2[eE])/;
  const DRIVE = /^[a-zA-Z][:|]$/, DRIVE_FIRST = /^[a-zA-Z][:|](?:\/|$)/;
  const DRIVE_ONLY = /^\/[a-zA-Z]:$/, DRIVE_OF_PATH = /^\/[a-zA-Z]:(?=\/|$)/;

  // Besides controls and what isn't ASCII, which are always encoded.
  const FRAGMENT = ' "<>`', QUERY = ' "#<>', SPECIAL_QUERY = QUERY + "'", PATH = QUERY + "?^`{}";
  const USER = PATH + "/:;=@[\\]|";

  const withoutBreaks = (text) =>
    exec(BREAKS, text) === null ? text : replaceAll(replaceAll(replaceAll(text, "\t", ""), "\n", ""), "\r", "");

  const trimmed = (text) => {
    let from = 0, to = text.length;
    while (from < to && text[from] <= " ") from++;
    while (from < to && text[to - 1] <= " ") to--;
    return withoutBreaks(slice(text, from, to));
  };

  // ---- schemes, ports, paths ----

  const PORTS = { __proto__: null, ftp: 21, file: null, http: 80, https: 443, ws: 80, wss: 443 };
  const isSpecial = (scheme) => scheme in PORTS;

  const parsePort = (digits, scheme) => {
    if (exec(DIGITS, digits) === null || +digits > 65535) throw "its port is no number up to 65535";
    return digits === "" || +digits === PORTS[scheme] ? null : +digits;
  };

  const isDrive = (segment) => segment.length === 2 && exec(DRIVE, segment) !== null;
  const startsWithDrive = (path) => exec(DRIVE_FIRST, path) !== null;
  const isDots = (segment) => segment.length <= 6 && exec(DOTS, segment) !== null;
  const isTwo = (dots) => dots.length === 2 || dots.length > 3;

  /** The path of a file or folder; `path` begins with a slash. */
  const normalise = (path, scheme) => {
    const encoded = percentEncode(path, PATH);
    const isFile = scheme === "file";
    if (!isFile && exec(SOME_DOTS, encoded) === null) return encoded;
    const segments = split(encoded, "/"), kept = list();
    const last = segments.length - 1;
    for (let i = 1; i <= last; i++) {
      const segment = segments[i];
      if (isDots(segment)) {
        const keepsDrive = isFile && kept.length === 1 && isDrive(kept[0]);
        if (isTwo(segment) && kept.length > 0 && !keepsDrive) kept.length--;
        if (i === last) kept[kept.length] = "";
      } else {
        kept[kept.length] = isFile && kept.length === 0 && isDrive(segment) ? segment[0] + ":" : segment;
      }
    }
    return "/" + join(kept, "/");
  };

  /** A base's path without its last segment, unless that is a drive, and a slash. */
  const folderOf = ({ path, scheme }) => {
    const isDriveOnly = scheme === "file" && exec(DRIVE_ONLY, path) !== null;
    return (isDriveOnly ? path : slice(path, 0, lastIndexOf(path, "/"))) + "/";
  };

  // ---- the parser ----

  const NO_HOST = "it has no host";

  /** Where the host ends and the port begins; -1 without a port. */
  const portColon = (text) => {
    const bracket = startsWith(text, "[") ? indexOf(text, "]") : 0;
    return bracket < 0 ? -1 : indexOf(text, ":", bracket);
  };

  const setHostAndPort = (url, text) => {
    const colon = portColon(text);
    const name = colon < 0 ? text : slice(text, 0, colon);
    if (name === "" && (colon >= 0 || isSpecial(url.scheme))) throw NO_HOST;
    url.host = parseHost(name, isSpecial(url.scheme));
    if (colon >= 0) url.port = parsePort(slice(text, colon + 1), url.scheme);
  };

  const setFileHost = (url, name) => {
    const parsed = name === "" ? "" : parseHost(name, true);
    url.host = parsed === "localhost" ? "" : parsed;
  };

  const parseAuthority = (url, body) => {
    const slash = indexOf(body, "/");
    const authority = slash < 0 ? body : slice(body, 0, slash);
    const at = lastIndexOf(authority, "@");
    if (at >= 0) {
      const user = slice(authority, 0, at);
      const colon = indexOf(user, ":");
      url.username = percentEncode(colon < 0 ? user : slice(user, 0, colon), USER);
      url.password = colon < 0 ? "" : percentEncode(slice(user, colon + 1), USER);
      if (at === authority.length - 1) throw NO_HOST;
    }
    setHostAndPort(url, slice(authority, at + 1));
    if (slash >= 0) url.path = normalise(slice(body, slash), url.scheme);
    else if (isSpecial(url.scheme)) url.path = "/";
  };

  const parseRelative = (url, body, base) => {
    url.username = base.username;
    url.password = base.password;
    url.host = base.host;
    url.port = base.port;
    if (body === "") {
      url.path = base.path;
      url.query ??= base.query;
    } else {
      url.path = normalise(startsWith(body, "/") ? body : folderOf(base) + body, url.scheme);
    }
  };

  const parseFile = (url, body, base) => {
    url.host = "";
    if (startsWith(body, "//")) {
      const slash = indexOf(body, "/", 2);
      const name = slash < 0 ? slice(body, 2) : slice(body, 2, slash);
      if (isDrive(name)) {
        url.path = normalise(slice(body, 1), "file");
      } else {
        setFileHost(url, name);
        url.path = slash < 0 ? "/" : normalise(slice(body, slash), "file");
      }
    } else if (base === null) {
      url.path = normalise(startsWith(body, "/") ? body : "/" + body, "file");
    } else if (startsWith(body, "/")) {
      const drive = startsWithDrive(slice(body, 1)) ? null : exec(DRIVE_OF_PATH, base.path);
      url.host = base.host;
      url.path = normalise(drive === null ? body : drive[0] + body, "file");
    } else if (startsWithDrive(body)) {
      url.host = base.host;
      url.path = normalise("/" + body, "file");
    } else {
      parseRelative(url, body, base);
    }
  };

  const newRecord = (scheme) => ({
    scheme, username: "", password: "", host: null, port: null, path: "", opaque: false, query: null, fragment: null,
  });

  const copy = (to, from) => {
    to.scheme = from.scheme;
    to.username = from.username;
    to.password = from.password;
    to.host = from.host;
    to.port = from.port;
    to.path = from.path;
    to.opaque = from.opaque;
    to.query = from.query;
    to.fragment = from.fragment;
  };

  const encodeQuery = (text, { scheme }) => percentEncode(text, isSpecial(scheme) ? SPECIAL_QUERY : QUERY);
  const encodeFragment = (text) => percentEncode(text, FRAGMENT);
  const encodeUser = (text) => percentEncode(text, USER);
  const withSlashes = (text, { scheme }) => (isSpecial(scheme) ? replaceAll(text, "\\", "/") : text);

  /** What follows the scheme, without query and fragment; `base` is what it is relative to, null if it isn't. */
  const parseBody = (url, body, base) => {
    const special = isSpecial(url.scheme);
    if (url.scheme === "file") {
      parseFile(url, body, base);
    } else if (startsWith(body, "//") || (special && base === null)) {
      parseAuthority(url, special ? slice(body, exec(LEADING_SLASHES, body)[0].length) : slice(body, 2));
    } else if (base !== null) {
      parseRelative(url, body, base);
    } else if (startsWith(body, "/")) {
      url.path = normalise(body, url.scheme);
    } else {
      const ends = endsWith(body, " ") && (url.query !== null || url.fragment !== null);
      url.path = percentEncode(ends ? slice(body, 0, -1) + "%20" : body, "");
      url.opaque = true;
    }
  };

  /** The record of a URL, relative to the record `base` if that isn't null. */
  const parse = (input, base) => {
    let text = trimmed(input);
    const found = exec(SCHEME, text);
    if (found === null && base === null) throw "it is relative, and there is no base";
    const url = newRecord(found === null ? base.scheme : toLowerCase(slice(found[0], 0, -1)));
    if (found !== null) text = slice(text, found[0].length);
    const hash = indexOf(text, "#");
    if (hash >= 0) {
      url.fragment = encodeFragment(slice(text, hash + 1));
      text = slice(text, 0, hash);
    }
    if (found === null && base.opaque) {
      if (text !== "" || hash < 0) throw "it is relative, and only a fragment can be to its base";
      const { fragment } = url;
      copy(url, base);
      url.fragment = fragment;
      return url;
    }
    const mark = indexOf(text, "?");
    if (mark >= 0) {
      url.query = encodeQuery(slice(text, mark + 1), url);
      text = slice(text, 0, mark);
    }
    const isRelative = found === null || (base !== null && base.scheme === url.scheme && isSpecial(url.scheme));
    parseBody(url, withSlashes(text, url), isRelative ? base : null);
    return url;
  };

  // ---- the serialiser ----

  const hasUser = (url) => url.username !== "" || url.password !== "";
  const hostOf = (url) => (url.host === null ? "" : url.port === null ? url.host : url.host + ":" + url.port);

  const serialise = (url) => {
    let text = url.scheme + ":";
    if (url.host !== null) {
      text += "//";
      if (hasUser(url)) text += url.username + (url.password === "" ? "" : ":" + url.password) + "@";
      text += hostOf(url);
    } else if (!url.opaque && startsWith(url.path, "//")) {
      text += "/.";
    }
    text += url.path;
    if (url.query !== null) text += "?" + url.query;
    return url.fragment === null ? text : text + "#" + url.fragment;
  };

  const originOf = (url) => {
    if (url.scheme === "blob") {
      try {
        const inner = parse(url.path, null);
        return inner.scheme === "http" || inner.scheme === "https" ? originOf(inner) : "null";
      } catch (reason) {
        if (typeof reason !== "string") throw reason;
      }
    }
    return isSpecial(url.scheme) && url.scheme !== "file" ? url.scheme + "://" + hostOf(url) : "null";
  };

  // ---- the setters: each does nothing, or throws a reason, where the value doesn't fit ----

  const cannotHaveUser = (url) => url.host === null || url.host === "" || url.scheme === "file";

  const setPort = (url, text) => {
    const digits = exec(LEADING_DIGITS, text)[0];
    if (digits !== "") url.port = parsePort(digits, url.scheme);
  };

  const setHost = (url, value, withPort) => {
    if (url.opaque) return;
    const text = exec(BEFORE_PATH, withSlashes(withoutBreaks(value), url))[0];
    if (url.scheme === "file") return setFileHost(url, text);
    const colon = portColon(text);
    const name = colon < 0 ? text : slice(text, 0, colon);
    if (colon >= 0 && !withPort) return;
    if (name === "" && (colon >= 0 || isSpecial(url.scheme) || hasUser(url) || url.port !== null)) return;
    url.host = parseHost(name, isSpecial(url.scheme));
    if (colon >= 0) setPort(url, slice(text, colon + 1));
  };

  const setters = {
    protocol(url, text) {
      const found = exec(SCHEME, withoutBreaks(text) + ":");
      if (found === null) return;
      const scheme = toLowerCase(slice(found[0], 0, -1));
      if (isSpecial(scheme) !== isSpecial(url.scheme)) return;
      if (scheme === "file" && (hasUser(url) || url.port !== null)) return;
      if (url.scheme === "file" && url.host === "") return;
      url.scheme = scheme;
      if (url.port === PORTS[scheme]) url.port = null;
    },
    username(url, text) {
      if (!cannotHaveUser(url)) url.username = encodeUser(text);
    },
    password(url, text) {
      if (!cannotHaveUser(url)) url.password = encodeUser(text);
    },
    host(url, text) {
      setHost(url, text, true);
    },
    hostname(url, text) {
      setHost(url, text, false);
    },
    port(url, text) {
      if (cannotHaveUser(url)) return;
      if (text === "") url.port = null;
      else setPort(url, withoutBreaks(text));
    },
    pathname(url, text) {
      if (url.opaque) return;
      const path = withSlashes(withoutBreaks(text), url);
      if (path === "" && !isSpecial(url.scheme)) url.path = url.host === null ? "/" : "";
      else url.path = normalise(startsWith(path, "/") ? path : "/" + path, url.scheme);
    },
    search(url, text) {
      url.query = text === "" ? null : encodeQuery(withoutBreaks(startsWith(text, "?") ? slice(text, 1) : text), url);
    },
    hash(url, text) {
      url.fragment = text === "" ? null : encodeFragment(withoutBreaks(startsWith(text, "#") ? slice(text, 1) : text));
    },
  };

  host.urls = { parse, serialise, copy, originOf, hostOf, setters };
});
