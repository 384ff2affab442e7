/**
 * The container (FORMAT.md, section 2): header, directory of sections, index of tiles, checks.
 *
 * `read` goes through the bytes once and allocates nothing by a number of the header that is not checked yet.
 */

import { crc32c, shortCheck } from "./checksums.js";
import { CorruptStreamError, NewerFormatError, PictureTooLargeError, require } from "./errors.js";

const MAGIC = [0x9e, 0x73, 0x64];
const VERSION = 1;
const SHORTEST = 15; // bytes: magic to height, a payload of one, the CRC-32C
const EXTENDED = 1;
const GREY = 2;
const MAX_SIDE = 65535;
const MAX_SECTIONS = 64;
const ALPHA = 1;
const NAMES = new Map([[ALPHA, "alpha"], [2, "EXIF"], [3, "ICC profile"], [4, "XMP"]]);

export const MAX_PIXELS = 2 ** 28;
export const MAX_TILE = 2 ** 10;

/**
 * A section as it is stored.
 * @typedef {object} Section
 * @property {number} type
 * @property {Uint8Array} body
 */

/**
 * What a stream holds. Payloads and bodies are views of its bytes.
 * @typedef {object} Stream
 * @property {number} width in pixels
 * @property {number} height
 * @property {number} quality 1 to 100 in steps of one half
 * @property {string} fingerprint of the coding, six hexadecimal digits
 * @property {boolean} grey
 * @property {number} tile side of a tile in pixels
 * @property {Section[]} sections
 * @property {Uint8Array[]} payloads of the tiles, row by row
 */

/** Reads forward, never past `end`. */
class Cursor {
  /**
   * @param {Uint8Array} bytes
   * @param {number} at
   * @param {number} end
   */
  constructor(bytes, at, end) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }

  get left() {
    return this.end - this.at;
  }

  /** @param {number} count @param {string} what */
  take(count, what) {
    require(count <= this.left, `the file is cut short: ${what} takes ${count} bytes, ${this.left} are left`);
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  /** @param {string} what */
  byte(what) {
    return this.take(1, what)[0];
  }

  /** @param {string} what */
  check(what) {
    const [low, high] = this.take(2, what);
    return low | (high << 8);
  }

  /** A number in groups of seven bits, in its shortest form. @param {string} what */
  varint(what) {
    let value = 0;
    for (let group = 0; group < 5; group++) {
      const byte = this.byte(what);
      value += (byte & 127) * 2 ** (7 * group);
      if (byte >= 128) continue;
      require((byte > 0 || group === 0) && value < 2 ** 32, `${what} is not stored in its shortest form`);
      return value;
    }
    throw new CorruptStreamError(`${what} takes more than five bytes`);
  }
}

/**
 * The stream in `bytes`, every rule of the container checked.
 *
 * @param {Uint8Array} bytes
 * @param {{maxPixels?: number, maxTile?: number}} [limits] larger pictures, or tiles of longer sides, are refused
 * @returns {Stream}
 * @throws {CorruptStreamError} not a stream, cut short, or altered
 * @throws {NewerFormatError} a later version, or a flag or critical section that version 1 does not have
 * @throws {PictureTooLargeError}
 */
export function read(bytes, { maxPixels = MAX_PIXELS, maxTile = MAX_TILE } = {}) {
  checkStart(bytes);
  require(crcMatches(bytes), "the file is damaged or cut short: its checksum does not match");
  const flags = bytes[3] & 15;
  if (flags & ~(EXTENDED | GREY)) throw newer(`flag ${lowestBit(flags & ~(EXTENDED | GREY))}`);

  const cursor = new Cursor(bytes, 4, bytes.length - 4);
  const fingerprint = [...cursor.take(3, "the fingerprint")].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const quality = cursor.byte("the quality") / 2;
  require(quality >= 1 && quality <= 100, `the quality must be 1 to 100 (got ${quality})`);
  const width = cursor.varint("the width");
  const height = cursor.varint("the height");
  const sides = width >= 1 && width <= MAX_SIDE && height >= 1 && height <= MAX_SIDE;
  require(sides, `the sides of a picture must be 1 to ${MAX_SIDE} pixels (got ${width}x${height})`);

  const { log2, directory } = flags & EXTENDED ? readDirectory(cursor) : { log2: 10, directory: [] };
  const tile = 2 ** log2;
  checkSize(width, height, tile, maxPixels, maxTile);
  const count = Math.ceil(width / tile) * Math.ceil(height / tile);
  let index = [{ length: cursor.left, check: -1 }];
  if (flags & EXTENDED) {
    require(3 * count <= cursor.left, `the file is cut short: it has no room for the index of ${count} tiles`);
    index = Array.from({ length: count }, () => ({
      length: cursor.varint("the length of a tile"),
      check: cursor.check("the check of a tile"),
    }));
    const found = shortCheck(bytes.subarray(0, cursor.at));
    require(cursor.check("the check of the header") === found, "the header is damaged: its check does not match");
  } else {
    require(count === 1, `${width}x${height} pixels take ${count} tiles, but the file has no index of tiles`);
  }

  const sections = directory.map(({ type, length, check }) => {
    return { type, body: checkedBody(cursor, length, check, `section ${type}`) };
  });
  const payloads = index.map(({ length, check }, number) => checkedBody(cursor, length, check, `tile ${number}`));
  require(cursor.left === 0, `${cursor.left} bytes are left over after the last tile`);
  return { width, height, quality, fingerprint, grey: Boolean(flags & GREY), tile, sections, payloads };
}

/**
 * Width and height in pixels of each tile, row by row.
 * @param {{width: number, height: number, tile: number}} stream
 */
export function tileBoxes({ width, height, tile }) {
  const boxes = [];
  for (let top = 0; top < height; top += tile) {
    for (let left = 0; left < width; left += tile) {
      boxes.push({ left, top, width: Math.min(tile, width - left), height: Math.min(tile, height - top) });
    }
  }
  return boxes;
}

/** Magic and version, which come before the CRC-32C: a later version may hold its check elsewhere. @param {Uint8Array} bytes */
function checkStart(bytes) {
  require(bytes.length > 0, "the file is empty");
  const right = MAGIC.every((byte, place) => place >= bytes.length || bytes[place] === byte);
  require(right, "this is not a .sodec file: it begins with other bytes");
  require(bytes.length >= SHORTEST, `the file is cut short: it has ${bytes.length} bytes`);
  const version = bytes[3] >> 4;
  require(version > 0, "the file is damaged: there is no version 0 of the format");
  if (version > VERSION) {
    const ours = bytes.slice();
    ours[3] = (VERSION << 4) | (bytes[3] & 15);
    require(!crcMatches(ours), `the file is damaged: its byte 3 says version ${version}, its checksum says ${VERSION}`);
    throw newer(`version ${version}`);
  }
}

/** @param {Uint8Array} bytes */
function crcMatches(bytes) {
  const end = bytes.length - 4;
  const stored = new DataView(bytes.buffer, bytes.byteOffset + end).getUint32(0, true);
  return stored === crc32c(bytes.subarray(0, end));
}

/** Tile size and sections of the extended header. @param {Cursor} cursor */
function readDirectory(cursor) {
  const critical = cursor.byte("the critical flags");
  if (critical) throw newer(`critical flag ${lowestBit(critical)}`);
  const log2 = cursor.byte("the size of the tiles");
  require(log2 >= 6 && log2 <= 16, `the sides of tiles must be 2^6 to 2^16 pixels (got 2^${log2})`);
  const count = cursor.byte("the number of sections");
  require(count <= MAX_SECTIONS, `there must be at most ${MAX_SECTIONS} sections (got ${count})`);
  /** @type {{type: number, length: number, check: number}[]} */
  const directory = [];
  for (let number = 0; number < count; number++) {
    const key = cursor.varint("the type of a section");
    const type = Math.floor(key / 2);
    if (key % 2 === 1 && type !== ALPHA) throw newer(`critical section ${type}`);
    const name = NAMES.get(type);
    require(!name || directory.every((entry) => entry.type !== type), `the file has two ${name} sections`);
    directory.push({ type, length: cursor.varint("the length of a section"), check: cursor.check("a check") });
  }
  return { log2, directory };
}

/**
 * @param {number} width
 * @param {number} height
 * @param {number} tile
 * @param {number} maxPixels
 * @param {number} maxTile
 */
function checkSize(width, height, tile, maxPixels, maxTile) {
  if (width * height > maxPixels) {
    const [pixels, most] = [width * height, maxPixels].map((count) => `${Number((count / 1e6).toPrecision(3))} million`);
    throw new PictureTooLargeError(`the picture is too large: ${width}x${height} are ${pixels} pixels, at most ${most} are taken`);
  }
  const side = Math.min(tile, Math.max(width, height));
  if (side > maxTile) {
    throw new PictureTooLargeError(`the picture has tiles of ${side} pixels a side; at most ${maxTile} are taken`);
  }
}

/**
 * @param {Cursor} cursor
 * @param {number} length
 * @param {number} check -1 in a stream without an index, where the CRC-32C covers the payload
 * @param {string} what
 */
function checkedBody(cursor, length, check, what) {
  require(length > 0, `${what} is empty`);
  const body = cursor.take(length, what);
  require(check < 0 || shortCheck(body) === check, `${what} is damaged: its check does not match`);
  return body;
}

/** @param {string} what */
function newer(what) {
  return new NewerFormatError(`the file needs a newer decoder: ${what} is unknown to version ${VERSION} of the format`);
}

/** @param {number} value */
const lowestBit = (value) => Math.log2(value & -value);
