// A URL's host: names, IPv4 and IPv6 addresses. Names of other than ASCII characters are refused, and labels in
// Punycode taken as they are: the tables of IDNA would be larger than all the rest. What is no host is thrown as a
// string, the reason.
(function (host) {
  "use strict";

  const { percentEncode, percentDecode } = host;
  const { indexOf, slice, startsWith, endsWith, toLowerCase, exec, list, split, uncurry } = host.webidl;
  const toText = uncurry(Number.prototype.toString);
  const NativeUint16Array = Uint16Array;
  const integer = parseInt;

  const FORBIDDEN = /[\0\t\n\r #/:<>?@[\\\]^|]/;
  const FORBIDDEN_IN_DOMAIN = /[\0-\x20#%/:<>?@[\\\]^|\x7f]/;
  const BEYOND_ASCII = /[^\0-\x7f]/, ENDS_IN_NUMBER = /(?:^|\.)(?:\d+|0x[0-9a-f]*)\.?$/;
  const DIGITS = { __proto__: null, 8: /^[0-7]*$/, 10: /^[0-9]+$/, 16: /^[0-9a-f]*$/ };

  const parsePart = (text) => {
    const radix = startsWith(text, "0x") ? 16 : text.length > 1 && startsWith(text, "0") ? 8 : 10;
    const digits = radix === 10 ? text : slice(text, radix === 16 ? 2 : 1);
    if (exec(DIGITS[radix], digits) === null) throw "its host ends in a number, but is no IPv4 address";
    return digits === "" ? 0 : integer(digits, radix);
  };

  const parseIPv4 = (text) => {
    const parts = split(text, ".");
    if (parts[parts.length - 1] === "") parts.length--;
    const last = parts.length - 1;
    if (last > 3) throw "its IPv4 address has more than four parts";
    let address = parsePart(parts[last]);
    if (address >= 256 ** (4 - last)) throw "a part of its IPv4 address is too large";
    for (let i = 0; i < last; i++) {
      const part = parsePart(parts[i]);
      if (part > 255) throw "a part of its IPv4 address is too large";
      address += part * 256 ** (3 - i);
    }
    return (address >>> 24) + "." + ((address >>> 16) & 255) + "." + ((address >>> 8) & 255) + "." + (address & 255);
  };

  const DOTTED = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/;
  const PIECE = /^[0-9a-fA-F]{1,4}$/;
  const NO_IPV6 = "its IPv6 address isn't one";

  /** The 16-bit pieces of one side of an IPv6 address; its end may be dotted if it is the address's. */
  const parsePieces = (text, isEnd) => {
    const pieces = list();
    if (text === "") return pieces;
    const parts = split(text, ":");
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i];
      const dotted = isEnd && i === parts.length - 1 ? exec(DOTTED, part) : null;
      if (dotted !== null) {
        const high = +dotted[1] * 256 + +dotted[2], low = +dotted[3] * 256 + +dotted[4];
        if (+dotted[1] > 255 || +dotted[2] > 255 || +dotted[3] > 255 || +dotted[4] > 255) throw NO_IPV6;
        pieces[pieces.length] = high;
        pieces[pieces.length] = low;
      } else if (exec(PIECE, part) !== null) {
        pieces[pieces.length] = integer(part, 16);
      } else {
        throw NO_IPV6;
      }
    }
    return pieces;
  };

  const parseIPv6 = (text) => {
    const gap = indexOf(text, "::");
    const head = parsePieces(gap < 0 ? text : slice(text, 0, gap), gap < 0);
    const tail = gap < 0 ? list() : parsePieces(slice(text, gap + 2), true);
    const count = head.length + tail.length;
    if (gap < 0 ? count !== 8 : count > 7) throw NO_IPV6;
    const address = new NativeUint16Array(8);
    for (let i = 0; i < head.length; i++) address[i] = head[i];
    for (let i = 0; i < tail.length; i++) address[8 - tail.length + i] = tail[i];
    return address;
  };

  const showIPv6 = (address) => {
    let from = -1, longest = 1;
    for (let i = 0; i < 8; i++) {
      let end = i;
      while (end < 8 && address[end] === 0) end++;
      if (end - i > longest) (from = i), (longest = end - i);
    }
    let text = "";
    for (let i = 0; i < 8; i++) {
      if (i === from) {
        text += i === 0 ? "::" : ":";
        i += longest - 1;
      } else {
        text += toText(address[i], 16) + (i < 7 ? ":" : "");
      }
    }
    return text;
  };

  const parseHost = (text, special) => {
    if (startsWith(text, "[")) {
      if (!endsWith(text, "]")) throw "its host has a [ without ]";
      return "[" + showIPv6(parseIPv6(slice(text, 1, -1))) + "]";
    }
    if (!special) {
      if (exec(FORBIDDEN, text) !== null) throw "its host has a character that no host may have";
      return percentEncode(text, "");
    }
    let name = percentDecode(text);
    if (exec(BEYOND_ASCII, name) !== null)
      throw "its host has characters that aren't ASCII: give it in Punycode (xn--…)";
    if (exec(FORBIDDEN_IN_DOMAIN, name) !== null) throw "its host has a character that no host may have";
    name = toLowerCase(name);
    return exec(ENDS_IN_NUMBER, name) === null ? name : parseIPv4(name);
  };

  host.parseHost = parseHost;
});
