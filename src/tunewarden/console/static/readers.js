// Readers of a statement's JSON: each accepts exactly one form and throws for any other (R6).

export const MAX_LIST = 1000;
const ID = /^[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}$/;
const HEX_32_BYTES = /^[0-9a-f]{64}$/;
const TIME =
  /^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z$/;
// Control, formatting, private and unassigned characters, halves of pairs, and every white space but the space.
const NOT_PRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;

export const isPrintable = (text) => !NOT_PRINTABLE.test(text);

const require = (holds, what) => {
  if (!holds) throw new Error(what);
};
const matching = (pattern, what) => (value) => require(typeof value === "string" && pattern.test(value), `not ${what}`);

export const identifier = matching(ID, "an id");
export const time = matching(TIME, "a UTC time with microseconds");
export const hex = matching(HEX_32_BYTES, "32 bytes in lower-case hex");
export const integer = (value) => require(Number.isSafeInteger(value) && value >= 0, "not a whole number");
export const flag = (value) => require(typeof value === "boolean", "not true or false");

export function text(value) {
  require(typeof value === "string" && value !== "" && isPrintable(value), "a text is empty or not printable");
  require([...value].length <= 512, "a text is too long");
}

export const oneOf = (...words) => (value) => require(words.includes(value), `not one of ${words.join(", ")}`);

export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

// An object with exactly these members.
export const objectOf = (readers) => (value) => {
  require(isObject(value), "not an object");
  const names = Object.keys(value);
  const wanted = Object.keys(readers);
  const isExact = names.length === wanted.length && names.every((name) => Object.hasOwn(readers, name));
  require(isExact, "an object has other members than this format");
  for (const name of wanted) readers[name](value[name]);
};

export const listOf = (reader) => (value) => {
  require(Array.isArray(value) && value.length <= MAX_LIST, "not a list, or too long");
  value.forEach((one) => reader(one));
};

export const nullable = (reader) => (value) => value === null || reader(value);
