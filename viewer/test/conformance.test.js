/** Every golden stream, payload and error, and every hostile payload. `npm test` in viewer/ runs it. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { codingFromJson, codingFromSafetensors } from "../format/coding.js";
import { CorruptStreamError, NewerFormatError } from "../format/errors.js";
import { payloadAnswer, streamAnswer } from "../node/answers.js";

const TESTS = new URL("../../tests/", import.meta.url);
const WEIGHTS = new URL("../../sodec/weights/lite/coding.safetensors", import.meta.url);

/** @param {string | URL} path below tests/ */
const file = (path) => readFileSync(new URL(path, TESTS));
/** @param {string} path */
const json = (path) => JSON.parse(file(path).toString());

const expected = json("conformance/expected.json");
const golden = codingFromJson(json("golden/model.json"));

for (const [name, wanted] of Object.entries(expected.streams)) {
  test(name, async () => assert.deepEqual(await streamAnswer(file(name), golden), wanted));
}

for (const [name, wanted] of Object.entries(expected.released)) {
  test(name, async () => {
    const { buffer, byteOffset, byteLength } = readFileSync(WEIGHTS);
    const coding = codingFromSafetensors(buffer.slice(byteOffset, byteOffset + byteLength));
    assert.deepEqual(await streamAnswer(file(name), coding), wanted);
  });
}

for (const [name, { refused, number }] of Object.entries(expected.errors)) {
  test(name, async () => {
    await assert.rejects(streamAnswer(file(name), golden), (error) => {
      assert.ok(error instanceof (refused === "newer" ? NewerFormatError : CorruptStreamError), String(error));
      if (number !== undefined) assert.match(error.message, new RegExp(`\\b${number}\\b`));
      return true;
    });
  });
}

/** The indexes that check.py makes of a rule. @param {{count: number, tables: number, skip_every: number}} rule */
function byRule({ count, tables, skip_every: every }) {
  return Array.from({ length: count }, (_, i) => (i % every === 0 ? 255 : i % tables));
}

for (const [number, { file: name, skip_bytes: skipped, sections, symbols }] of expected.payloads.entries()) {
  test(`${name}, case ${number}`, () => {
    const read = sections.map((/** @type {any} */ one) => ({ tables: one.tables, indexes: one.indexes ?? byRule(one.rule) }));
    const answer = () => payloadAnswer(file(name).subarray(skipped), read);
    if (symbols === null) assert.throws(answer, CorruptStreamError);
    else assert.deepEqual(answer(), { symbols });
  });
}
