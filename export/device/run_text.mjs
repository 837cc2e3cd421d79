// Let a model of this bundle answer for texts, in a browser or in Node.
//
//     import * as ort from "onnxruntime-web";
//     import { open, check } from "./run.mjs";
//     const model = await open(ort, new URL("./", location.href));
//     await model.answer("What a film!");        // [["good", 0.98], ["bad", 0.02]]
//     await check(ort, new URL("./", location.href));   // [] if every file gives what it should
//
// The bundle's files are fetched from the given address; nothing else is needed but an ONNX Runtime.

/** The code points of ranges such as "9-d 20". */
function readRanges(text) {
  const found = new Set();
  for (const part of text.split(" ").filter(Boolean)) {
    const [first, last] = part.split("-").map((number) => parseInt(number, 16));
    for (let code = first; code <= (last ?? first); code++) found.add(code);
  }
  return found;
}

/** WordPiece with the ids of the Python package "tokenizers"; `tokenizer.py` is its twin. */
export class Tokenizer {
  /**
   * @param rules the step "tokenize" of manifest.json
   * @param tables characters.json
   * @param {string} vocabulary vocab.txt
   */
  constructor(rules, tables, vocabulary) {
    this.rules = rules;
    const names = ["removed", "marks", "punctuation", "spaces", "ideographs"];
    this.sets = Object.fromEntries(names.map((name) => [name, readRanges(tables[name])]));
    this.lowered = new Map();
    for (const [start, end, step, far] of tables.lowered) {
      for (let code = start; code < end; code += step) {
        this.lowered.set(code, String.fromCodePoint(code + far));
      }
    }
    const lines = vocabulary.split("\n").map((line) => this.trimEnd(line));
    if (lines.at(-1) === "") lines.pop();
    this.ids = new Map(lines.map((piece, id) => [piece, id]));
    this.longest = Math.max(...lines.map((piece) => Array.from(piece).length));
    const escaped = [...rules.special].sort((a, b) => b.length - a.length)
      .map((token) => token.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.special = escaped.length ? new RegExp(escaped.join("|"), "g") : null;
  }

  trimEnd(line) {
    let end = line.length;
    while (end > 0 && this.sets.spaces.has(line.charCodeAt(end - 1))) end--;
    return line.slice(0, end);
  }

  /** The ids of a text, its ends marked, cut or filled up with 0 to a length: Int32Array. */
  encode(text, length) {
    const found = [this.ids.get(this.rules.cls)];
    for (const id of this.#read(text)) {
      if (found.length === length - 1) break;
      found.push(id);
    }
    found.push(this.ids.get(this.rules.sep));
    const ids = new Int32Array(length);
    ids.set(found);
    return ids;
  }

  *#read(text) {
    let start = 0;
    for (const match of this.special ? text.matchAll(this.special) : []) {
      yield* this.#cutAll(text.slice(start, match.index));
      yield this.ids.get(match[0]);
      start = match.index + match[0].length;
    }
    yield* this.#cutAll(text.slice(start));
  }

  *#cutAll(text) {
    let clean = "";
    for (const letter of text) clean += this.#clean(letter);
    if (this.rules.strip_accents) clean = clean.normalize("NFD");
    let spread = "";
    for (const letter of clean) spread += this.#fold(letter);
    for (const word of spread.split(" ")) if (word) yield* this.#cut(word);
  }

  #clean(letter) {
    const code = letter.codePointAt(0);
    if (this.rules.clean && this.sets.removed.has(code)) return "";
    if (this.rules.clean && this.sets.spaces.has(code)) return " ";
    return this.rules.chinese && this.sets.ideographs.has(code) ? ` ${letter} ` : letter;
  }

  #fold(letter) {
    const code = letter.codePointAt(0);
    if (this.rules.strip_accents && this.sets.marks.has(code)) return "";
    let made = "";
    // One character at a time: a sigma at a word's end stays a sigma.
    const low = this.rules.lowercase ? this.lowered.get(code) ?? letter.toLowerCase() : letter;
    for (const one of low) {
      const place = one.codePointAt(0);
      if (this.sets.spaces.has(place)) made += " ";
      else made += this.sets.punctuation.has(place) ? ` ${one} ` : one;
    }
    return made;
  }

  #cut(word) {
    const letters = Array.from(word);
    const unknown = [this.ids.get(this.rules.unk)];
    if (letters.length > this.rules.longest_word) return unknown;
    const found = [];
    let prefix = "";
    for (let start = 0; start < letters.length;) {
      let end = Math.min(letters.length, start + this.longest);
      while (end > start && !this.ids.has(prefix + letters.slice(start, end).join(""))) end--;
      if (end === start) return unknown;
      found.push(this.ids.get(prefix + letters.slice(start, end).join("")));
      start = end;
      prefix = this.rules.prefix;
    }
    return found;
  }
}

async function fetchText(base, name) {
  const reply = await fetch(new URL(name, base));
  if (!reply.ok) throw new Error(`${name}: ${reply.status}`);
  return reply.text();
}

/**
 * Open a model of the bundle.
 *
 * @param ort an ONNX Runtime, such as onnxruntime-web
 * @param base address of the bundle's folder
 * @param {string} name of a variant; by default the bundle's own default if that is .onnx, else
 *     its smallest .onnx file
 */
export async function open(ort, base, name) {
  const manifest = JSON.parse(await fetchText(base, "manifest.json"));
  const known = manifest.variants.filter((one) => one.format === "onnx")
    .sort((a, b) => a.bytes - b.bytes);
  const variant = known.find((one) => one.name === (name ?? manifest.default)) ??
    (name ? undefined : known[0]);
  if (!variant) throw new Error(`the bundle has no .onnx file ${name ?? ""}`);
  const rules = manifest.steps.find((one) => one.step === "tokenize");
  if (rules.kind !== "wordpiece") throw new Error(`the tokenizer ${rules.kind} is not known here`);
  const tables = JSON.parse(await fetchText(base, "characters.json"));
  const tokenizer = new Tokenizer(rules, tables, await fetchText(base, "vocab.txt"));
  const session = await ort.InferenceSession.create(new URL(variant.file, base).href);
  const length = manifest.input.shape[0];
  /** The numbers that come out for a text, in the order of manifest.classes. */
  const score = async (text) => {
    const ids = tokenizer.encode(text, length);
    const tensor = new ort.Tensor("int32", ids, [1, length]);
    const answers = await session.run({ [session.inputNames[0]]: tensor });
    return Array.from(answers[session.outputNames[0]].data);
  };
  /** Labels and their numbers, the highest first where the task ranks them. */
  const answer = async (text) => {
    const pairs = (await score(text)).map((value, index) => [manifest.classes[index], value]);
    return manifest.output.ranked === false ? pairs : pairs.sort((a, b) => b[1] - a[1]);
  };
  return { manifest, variant, tokenizer, length, score, answer };
}

/** Prove tokenizer and model on the bundle's whole files: a line for each that differs. */
export async function check(ort, base, name) {
  const model = await open(ort, base, name);
  const golden = JSON.parse(await fetchText(base, "golden/golden.json"));
  const expected = golden.outputs[model.variant.name];
  const tolerance = golden.tolerances[model.variant.name];
  const wrong = [];
  for (const [place, entry] of golden.samples.entries()) {
    if (!entry.original) continue;
    const text = await fetchText(base, entry.original);
    const [stated] = Object.values(JSON.parse(await fetchText(base, entry.file)));
    const ids = Array.from(model.tokenizer.encode(text, model.length));
    const others = ids.filter((id, index) => id !== stated[index]).length;
    const given = await model.score(text);
    const off = Math.max(...given.map((value, index) => Math.abs(value - expected[place][index])));
    if (others || !(off <= tolerance)) {
      wrong.push(`${entry.original}: ${others} ids differ, answers by ${off.toPrecision(2)}`);
    }
  }
  return wrong;
}
