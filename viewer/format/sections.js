/** Bodies of sections (FORMAT.md, sections 2.2 and 2.3). */

import { require } from "./errors.js";

const MAX_METADATA = 2 ** 24;
const METADATA = [2, 3, 4];

/**
 * The alpha values of a stream, row by row, or null if it has none; its metadata sections are checked too.
 *
 * @param {import("./container.js").Stream} stream
 * @returns {Promise<Uint8Array | null>}
 */
export async function readSections({ sections, width, height }) {
  let alpha = null;
  for (const { type, body } of sections) {
    if (type === 1) alpha = await unpackAlpha(body, width, height);
    else if (METADATA.includes(type)) await unpackMetadata(body);
  }
  return alpha;
}

/**
 * @param {Uint8Array} body
 * @param {number} width
 * @param {number} height
 */
async function unpackAlpha(body, width, height) {
  if (body[0] === 0) {
    require(body.length === 2, `a constant alpha section must have 2 bytes (got ${body.length})`);
    return new Uint8Array(width * height).fill(body[1]);
  }
  require(body[0] === 1, `alpha method ${body[0]} does not exist`);
  const values = await inflate(body.subarray(1), width * height);
  require(values.length === width * height, `the alpha section does not hold ${width}x${height} values`);
  for (let place = width; place < values.length; place++) values[place] += values[place - width]; // modulo 256
  return values;
}

/** @param {Uint8Array} body */
async function unpackMetadata(body) {
  require(body[0] <= 1, `metadata method ${body[0]} does not exist`);
  const data = body[0] === 0 ? body.subarray(1) : await inflate(body.subarray(1), MAX_METADATA);
  require(data.length >= 1 && data.length <= MAX_METADATA, "a metadata section must have 1 to 2^24 bytes");
  return data;
}

/**
 * What a zlib stream holds. Nothing may follow the stream.
 *
 * @param {Uint8Array} bytes
 * @param {number} most bytes that are taken
 * @returns {Promise<Uint8Array>}
 */
async function inflate(bytes, most) {
  /** @type {Uint8Array[]} */
  const parts = [];
  let length = 0;
  const complete = await inflateParts(bytes, (part) => {
    parts.push(part);
    length += part.length;
    return length <= most;
  });
  require(complete, "a section can't be inflated, or holds too much");
  // Browsers refuse bytes behind the stream, Node 20 does not: it must need its last byte.
  require(!(await inflateParts(bytes.subarray(0, -1), () => true)), "bytes follow the data of a section");
  const data = new Uint8Array(length);
  for (let place = 0, i = 0; i < parts.length; place += parts[i++].length) data.set(parts[i], place);
  return data;
}

/**
 * Gives `take` the data of a zlib stream part by part, until it returns false. Whether the stream was read to its end.
 *
 * @param {Uint8Array} bytes
 * @param {(part: Uint8Array) => boolean} take
 */
async function inflateParts(bytes, take) {
  const source = new Blob([/** @type {BlobPart} */ (bytes)]).stream();
  const reader = source.pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (take(part.value)) continue;
      await reader.cancel();
      return false;
    }
  } catch {
    return false; // the engine's error says no more than that
  }
  return true;
}
