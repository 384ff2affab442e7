/** One tile's integers (FORMAT.md, section 3). */

import { Payload, SKIP } from "./rans.js";
import { scaleIndexes } from "./scale-network.js";

/**
 * The integers of a model: what symbols depend on.
 * @typedef {object} Coding
 * @property {import("./rans.js").TableSet[]} zTables sets of at most 255 tables, one table per channel of z
 * @property {import("./rans.js").TableSet} yTables one table per scale index
 * @property {import("./scale-network.js").Layer[]} layers of the scale network
 * @property {Int32Array[]} offsets one row per quality, 199 in all
 */

/**
 * @typedef {object} Symbols
 * @property {Int16Array} z (channel, row, column)
 * @property {Int16Array} y (channel, row, column)
 * @property {number} rows of y; z has a quarter of them, rounded up
 * @property {number} columns of y
 */

/**
 * @param {Uint8Array} payload
 * @param {number} width of the tile in pixels
 * @param {number} height
 * @param {number} quality
 * @param {Coding} coding
 * @returns {Symbols}
 */
export function readTile(payload, width, height, quality, coding) {
  const rows = Math.ceil(height / 16);
  const columns = Math.ceil(width / 16);
  const zRows = Math.ceil(rows / 4);
  const zColumns = Math.ceil(columns / 4);
  const area = zRows * zColumns;
  const reader = new Payload(payload);
  const parts = coding.zTables.map((set) => {
    const channels = Uint8Array.from({ length: set.tables.length * area }, (_, place) => Math.floor(place / area));
    return reader.read(channels, set);
  });
  const z = new Int16Array(parts.reduce((count, part) => count + part.length, 0));
  for (let place = 0, i = 0; i < parts.length; place += parts[i++].length) z.set(parts[i], place);

  const offset = coding.offsets[2 * quality - 2];
  const found = scaleIndexes(z, zRows, zColumns, coding.layers, offset);
  const channels = offset.length;
  const indexes = new Uint8Array(channels * rows * columns);
  for (let channel = 0, place = 0; channel < channels; channel++) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, place++) {
        indexes[place] = found.indexes[(row * found.columns + column) * channels + channel] || SKIP;
      }
    }
  }
  const y = reader.read(indexes, coding.yTables);
  reader.finish();
  return { z, y, rows, columns };
}
