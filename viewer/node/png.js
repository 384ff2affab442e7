/** Pictures as PNG files (ISO/IEC 15948), since Node writes none. */

import { deflateSync } from "node:zlib";

const SIGNATURE = Buffer.from("89504e470d0a1a0a", "hex");
const RGBA = 6;

/**
 * @param {Uint8ClampedArray} pixels RGBA, row by row
 * @param {number} width
 * @param {number} height
 */
export function encodePng(pixels, width, height) {
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, RGBA, 0, 0, 0]);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  const lines = Buffer.alloc(height * (4 * width + 1)); // each begins with its filter, none
  for (let row = 0; row < height; row++) {
    lines.set(pixels.subarray(4 * width * row, 4 * width * (row + 1)), row * (4 * width + 1) + 1);
  }
  return Buffer.concat([SIGNATURE, chunk("IHDR", header), chunk("IDAT", deflateSync(lines)), chunk("IEND", Buffer.alloc(0))]);
}

/** @param {string} name @param {Buffer} data */
function chunk(name, data) {
  const body = Buffer.concat([Buffer.from(name), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

/** The CRC of PNG and zlib, which is another than that of streams. @param {Uint8Array} bytes */
function crc32(bytes) {
  let register = 0xffffffff;
  for (const byte of bytes) {
    register ^= byte;
    for (let bit = 0; bit < 8; bit++) register = (register >>> 1) ^ (register & 1 ? 0xedb88320 : 0);
  }
  return (register ^ 0xffffffff) >>> 0;
}
