/** The entropy coder's payload (FORMAT.md, section 4). */

import { CorruptStreamError, require } from "./errors.js";

export const SKIP = 255;
const LIMIT = 2 ** 16;
const MAX_VALUE = 32767;

/**
 * A frequency table (section 5): the symbol s, of value minimum + s, has the slots cumulative[s] to
 * cumulative[s + 1] - 1; the last symbol is the escape.
 * @typedef {object} Table
 * @property {number} minimum
 * @property {Int32Array} cumulative
 */

/**
 * @typedef {object} TableSet
 * @property {number} precision in bits
 * @property {Table[]} tables
 */

/** A payload that is being read: `read` once for each section, then `finish`. */
export class Payload {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    require(bytes.length > 0, "a payload is empty");
    const log2Lanes = bytes[0] & 7;
    require(bytes[0] < 128 && log2Lanes <= 6, "the header byte of a payload is not one of the format");
    this.lanes = 2 ** log2Lanes;
    this.precision = ((bytes[0] >> 3) & 15) + 1;
    const bits = new Bits(bytes, 1);
    const [width, base] = this.lanes === 1 ? [5, 0] : [4, 16];
    this.states = Uint32Array.from({ length: this.lanes }, () => {
      const e = bits.take(width) + base;
      return 2 ** e + bits.take(e);
    });
    this.at = bits.endOfZeros();
    require((bytes.length - this.at) % 2 === 0, "a payload ends with half a word");
    this.bytes = bytes;
    this.final = this.lanes === 1 ? 1 : LIMIT;
  }

  /**
   * The symbols of a section.
   *
   * @param {Uint8Array} indexes the table of each symbol; where it is 255 the symbol is 0 and takes no bits
   * @param {TableSet} set
   * @returns {Int16Array}
   */
  read(indexes, { precision, tables }) {
    require(precision === this.precision, `a payload has ${this.precision} bits of precision, its tables ${precision}`);
    const symbols = new Int16Array(indexes.length);
    const lastLane = this.lanes - 1;
    let lane = 0;
    for (let i = 0; i < indexes.length; i++) {
      if (indexes[i] === SKIP) continue;
      symbols[i] = this.#symbol(lane, tables[indexes[i]]);
      lane = (lane + 1) & lastLane;
    }
    return symbols;
  }

  /** Checks that the payload ends here. */
  finish() {
    require(this.at === this.bytes.length, "a payload has words left over");
    require(this.states.every((state) => state === this.final), "a payload does not end where its encoding began");
  }

  /** @param {number} lane @param {Table} table */
  #symbol(lane, { minimum, cumulative }) {
    const state = this.states[lane];
    const slot = state % 2 ** this.precision;
    const escape = cumulative.length - 2;
    let s = 0; // the last one with cumulative[s] <= slot
    for (let above = escape + 1; above - s > 1; ) {
      const middle = (s + above) >> 1;
      if (cumulative[middle] <= slot) s = middle;
      else above = middle;
    }
    const frequency = cumulative[s + 1] - cumulative[s];
    this.states[lane] = this.#renormalised(frequency * (state >>> this.precision) + slot - cumulative[s]);
    return s < escape ? minimum + s : this.#escaped(lane, minimum, minimum + escape - 1);
  }

  /** @param {number} lane @param {number} minimum @param {number} maximum */
  #escaped(lane, minimum, maximum) {
    let k = 0;
    while (k < 16 && this.#uniform(lane, 1) === 1) k++;
    const u = 2 ** k + (k > 0 ? this.#uniform(lane, k) : 0) - 1;
    const value = u % 2 === 0 ? maximum + 1 + u / 2 : minimum - 1 - (u - 1) / 2;
    require(Math.abs(value) <= MAX_VALUE, `a symbol must be within ${MAX_VALUE} of 0 (got ${value})`);
    return value;
  }

  /** @param {number} lane @param {number} bits */
  #uniform(lane, bits) {
    const state = this.states[lane];
    this.states[lane] = this.#renormalised(state >>> bits);
    return state % 2 ** bits;
  }

  /** @param {number} state */
  #renormalised(state) {
    if (state >= LIMIT) return state;
    if (this.at === this.bytes.length) {
      if (this.lanes > 1) throw new CorruptStreamError("a payload ends before its last symbol");
      return state;
    }
    const word = this.bytes[this.at] | (this.bytes[this.at + 1] << 8);
    this.at += 2;
    return LIMIT * state + word;
  }
}

/** A sequence of bits, the highest of each byte first. */
class Bits {
  /** @param {Uint8Array} bytes @param {number} start of the sequence, in bytes */
  constructor(bytes, start) {
    this.bytes = bytes;
    this.at = 8 * start;
  }

  /** The next `count` bits as a number. @param {number} count */
  take(count) {
    require(this.at + count <= 8 * this.bytes.length, "a payload ends within its states");
    let value = 0;
    for (const end = this.at + count; this.at < end; this.at++) {
      value = 2 * value + ((this.bytes[this.at >> 3] >> (7 - (this.at & 7))) & 1);
    }
    return value;
  }

  /** The first byte behind the sequence, whose last byte must be filled up with zeros. */
  endOfZeros() {
    require(this.take(-this.at & 7) === 0, "bits that must be 0 behind the states of a payload are set");
    return this.at >> 3;
  }
}
