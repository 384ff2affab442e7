/** What a decoder answers to tests/conformance/check.py; used by the command line and by the tests. */

import { createHash } from "node:crypto";

import { tablesFromJson } from "../format/coding.js";
import { read, tileBoxes } from "../format/container.js";
import { Payload } from "../format/rans.js";
import { readSections } from "../format/sections.js";
import { readTile } from "../format/tile.js";

const UNLIMITED = { maxPixels: Infinity, maxTile: Infinity };

/** @param {Uint8Array | Int16Array} values 16-bit ones are hashed with their low byte first */
function sha256(values) {
  return createHash("sha256").update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)).digest("hex");
}

/**
 * @param {Uint8Array} bytes of a stream
 * @param {import("../format/tile.js").Coding} coding
 */
export async function streamAnswer(bytes, coding) {
  const stream = read(bytes, UNLIMITED);
  const alpha = await readSections(stream);
  const tiles = tileBoxes(stream).map(({ width, height }, number) => {
    const { z, y } = readTile(stream.payloads[number], width, height, stream.quality, coding);
    return { z: sha256(z), y: sha256(y) };
  });
  const { fingerprint, width, height, quality, grey } = stream;
  return { fingerprint, width, height, quality, grey, alpha: alpha && sha256(alpha), tiles };
}

/**
 * @param {Uint8Array} payload
 * @param {{tables: any, indexes: number[]}[]} sections
 */
export function payloadAnswer(payload, sections) {
  const reader = new Payload(payload);
  const symbols = sections.map(({ tables, indexes }) => {
    return sha256(reader.read(Uint8Array.from(indexes), tablesFromJson(tables)));
  });
  reader.finish();
  return { symbols };
}
