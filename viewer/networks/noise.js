/**
 * The noise that the full decoder adds: a function of the place in the whole picture alone, in integers. As
 * sodec/models/noise.py.
 */

const DEVIATION = Math.fround(Math.sqrt((8 * (256 ** 2 - 1)) / 12)); // of the sum of eight bytes, as 32-bit floats have it
const MEAN = 1020;

/**
 * Noise of mean 0 and deviation 1, close to Gaussian.
 *
 * @param {number} channels
 * @param {number} rows
 * @param {number} columns
 * @param {number} top row of the first value in the noise of the whole picture
 * @param {number} left
 * @returns {Float32Array} (channel, row, column)
 */
export function placeNoise(channels, rows, columns, top, left) {
  const values = new Float32Array(channels * rows * columns);
  let place = 0;
  for (let channel = 0; channel < channels; channel++) {
    const hashed = mixed(channel);
    for (let row = top; row < top + rows; row++) {
      const start = mixed(hashed + row);
      for (let column = left; column < left + columns; column++) {
        const first = mixed(start + column);
        const second = mixed(first ^ 0x5bd1e995);
        values[place++] = (sumOfBytes(first) + sumOfBytes(second) - MEAN) / DEVIATION;
      }
    }
  }
  return values;
}

/** A bijection of 32-bit integers whose results look random: "lowbias32" of Wellons (2018). @param {number} x */
function mixed(x) {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return x ^ (x >>> 16);
}

/** @param {number} x */
const sumOfBytes = (x) => (x & 255) + ((x >> 8) & 255) + ((x >> 16) & 255) + (x >>> 24);
