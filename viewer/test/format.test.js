/** Rules of the format that no golden stream has: limits, sections, and the arithmetic against exact integers. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { deflateSync } from "node:zlib";

import { crc32c, shortCheck } from "../format/checksums.js";
import { read, tileBoxes } from "../format/container.js";
import { CorruptStreamError, PictureTooLargeError } from "../format/errors.js";
import { scaleIndexes } from "../format/scale-network.js";
import { readSections } from "../format/sections.js";

const GOLDEN = new URL("../../tests/golden/streams/", import.meta.url);
const digits = new TextEncoder().encode("123456789");

test("CRC-32C of nine digits", () => assert.equal(crc32c(digits), 0xe3069283));

/** A stream of one payload byte with these sections. @param {[number, Uint8Array][]} sections key and body */
function stream(sections, { width = 4, height = 3, log2 = 10, tiles = 1 } = {}) {
  const varint = (/** @type {number} */ value) => {
    const out = [];
    for (; value >= 128; value = Math.floor(value / 128)) out.push((value % 128) | 128);
    return [...out, value];
  };
  const check = (/** @type {number[] | Uint8Array} */ part) => {
    const value = shortCheck(Uint8Array.from(part));
    return [value & 255, value >> 8];
  };
  const head = [0x9e, 0x73, 0x64, 0x11, 1, 2, 3, 100, ...varint(width), ...varint(height), 0, log2, sections.length];
  for (const [key, body] of sections) head.push(...varint(key), ...varint(body.length), ...check(body));
  for (let tile = 0; tile < tiles; tile++) head.push(1, ...check([0]));
  head.push(...check(head));
  for (const [, body] of sections) head.push(...body);
  for (let tile = 0; tile < tiles; tile++) head.push(0);
  const crc = crc32c(Uint8Array.from(head));
  return Uint8Array.from([...head, crc & 255, (crc >> 8) & 255, (crc >> 16) & 255, crc >>> 24]);
}

/** @param {number} method @param {Uint8Array} data */
const section = (method, data) => Uint8Array.from([method, ...data]);

test("alpha is undone row by row", async () => {
  const body = section(1, deflateSync(Uint8Array.from([1, 2, 3, 4, 255, 255, 255, 255, 0, 1, 0, 1])));
  const alpha = await readSections(read(stream([[3, body]])));
  assert.deepEqual(alpha, Uint8Array.from([1, 2, 3, 4, 0, 1, 2, 3, 0, 2, 2, 4]));
});

test("sections that are not as the format has them are refused", async () => {
  const twelve = deflateSync(new Uint8Array(12));
  const cases = [
    [3, section(1, deflateSync(new Uint8Array(11)))],
    [3, section(1, deflateSync(new Uint8Array(13)))],
    [3, section(1, Uint8Array.from([...twelve, 0]))],
    [3, section(1, Uint8Array.from([...twelve, ...twelve]))],
    [3, section(1, twelve.subarray(0, -1))],
    [3, section(1, digits)],
    [3, section(0, digits)],
    [3, section(2, twelve)],
    [4, section(0, new Uint8Array(0))],
    [4, section(1, deflateSync(new Uint8Array(0)))],
    [6, section(1, deflateSync(new Uint8Array(2 ** 24 + 1)))],
    [8, section(2, digits)],
  ];
  for (const [key, body] of cases) {
    const one = read(stream([[/** @type {number} */ (key), /** @type {Uint8Array} */ (body)]]));
    await assert.rejects(readSections(one), CorruptStreamError, `${key} ${body}`);
  }
  for (const key of [2, 4, 6, 8]) {
    const twice = stream([[key, section(0, digits)], [key, section(0, digits)]]);
    assert.throws(() => read(twice), /two/);
  }
});

test("unknown sections are skipped, and metadata of any length up to 2^24", async () => {
  const body = section(1, deflateSync(new Uint8Array(2 ** 24)));
  assert.equal(await readSections(read(stream([[4, body], [18, digits], [18, digits], [2 ** 32 - 2, digits]]))), null);
});

test("sizes beyond the limits are refused before anything is made of them", () => {
  const large = stream([], { width: 10000, height: 10000, tiles: 100 });
  assert.equal(read(large).payloads.length, 100);
  assert.throws(() => read(large, { maxPixels: 5e7 }), (error) => {
    assert.ok(error instanceof PictureTooLargeError);
    assert.match(error.message, /10000x10000 are 100 million pixels, at most 50 million/);
    return true;
  });
  assert.throws(() => read(stream([], { width: 1500, log2: 11 })), PictureTooLargeError);
  assert.throws(() => read(stream([], { width: 65535, height: 4096, log2: 6, tiles: 3 })), /no room for the index/);
});

test("tiles cover the picture", () => {
  const tiles = tileBoxes(read(readFileSync(new URL("tiles.sodec", GOLDEN))));
  assert.deepEqual(tiles.map(({ left, top, width, height }) => [left, top, width, height]), [
    [0, 0, 64, 64], [64, 0, 64, 64], [128, 0, 2, 64], [0, 64, 64, 6], [64, 64, 64, 6], [128, 64, 2, 6],
  ]);
});

test("requantisation is exact for every shift, at its extremes and between", () => {
  let state = 1n;
  const draw = (/** @type {number} */ bits) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & (2n ** 64n - 1n);
    return Number((state >> 20n) % BigInt(2 ** bits)) - 2 ** (bits - 1);
  };
  const edges = [-(2 ** 31) + 1, -65537, -65536, -1, 0, 1, 65535, 65536, 2 ** 31 - 1];
  for (let shift = 1; shift <= 46; shift++) {
    const pairs = edges.flatMap((sum) => edges.map((m) => [sum, m]));
    for (let i = 0; i < 200; i++) pairs.push([draw(32), draw(1 + (i % 32))]);
    for (const [sum, m] of pairs) {
      const layer = {
        weights: new Int8Array(1), inputs: 1, outputs: 1, k: 1, bias: Int32Array.of(sum), multiplier: Int32Array.of(m),
        shift, upsample: 1,
      };
      const { indexes } = scaleIndexes(new Int16Array(1), 1, 1, [layer], Int32Array.of(5));
      let r = (BigInt(sum) * BigInt(m) + (1n << BigInt(shift - 1))) >> BigInt(shift);
      r = r < -(2n ** 31n) ? -(2n ** 31n) : r > 2n ** 31n - 1n ? 2n ** 31n - 1n : r;
      r = (r + 5n + 8n) >> 4n;
      assert.equal(indexes[0], Number(r < 0n ? 0n : r > 63n ? 63n : r), `${sum} x ${m} >> ${shift}`);
    }
  }
});
