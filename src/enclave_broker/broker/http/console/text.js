// What others wrote, made fit to be shown: bounded, with nothing hidden in it; and numbers, times and sizes in words.

// Controls, what is invisible, lone surrogates and what turns the direction of text. An emoji's own variation
// selector is left alone; line ends and tabs are, where text has lines.
const HIDDEN = /(?<!\p{Extended_Pictographic})\ufe0f|(?!\ufe0f)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

function escaped(character) {
  const number = character.codePointAt(0).toString(16);
  return number.length > 4 ? `\\u{${number}}` : `\\u${number.padStart(4, "0")}`;
}

/** Text of several lines. */
export function visible(text) {
  return String(text).replace(HIDDEN, (c) => (c === "\n" || c === "\t" ? c : escaped(c)));
}

/** Text for one line: a line end in it is an escape, too. */
export function visibleLine(text, most = 200) {
  return clip(text, most).replace(HIDDEN, escaped);
}

/** Its first `most` characters, and how many more there are. */
export function clip(text, most) {
  const whole = String(text);
  return whole.length > most ? `${whole.slice(0, most)}… (${count(whole.length - most)} more characters)` : whole;
}

export function json(value, indent = 0) {
  return JSON.stringify(value, null, indent) ?? "undefined";
}

/** A value as text of several lines, bounded. */
export function shown(value, most) {
  return visible(clip(json(value, 2), most));
}

export const count = (number) => Number(number).toLocaleString("en");

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function milliseconds(ms) {
  if (!Number.isFinite(ms)) return "";
  if (ms < 10) return `${Number(ms.toPrecision(2))} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return age(ms);
}

/** How long something has been, coarsely. */
export function age(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d`;
}

export function bytes(number) {
  if (!Number.isFinite(number)) return "";
  if (number < 1000) return `${number} B`;
  if (number < 1_000_000) return `${(number / 1000).toFixed(1)} kB`;
  return `${(number / 1_000_000).toFixed(1)} MB`;
}

/** The time of day, with the date when that is another. */
export function clock(ms) {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return "";
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}
