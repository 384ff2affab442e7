/** The scale network (FORMAT.md, section 6), in integers: the same on every machine. */

/**
 * @typedef {object} Layer
 * @property {Int8Array} weights (output, k, k, input)
 * @property {number} inputs
 * @property {number} outputs
 * @property {number} k 1 or 3
 * @property {Int32Array} bias
 * @property {Int32Array} multiplier
 * @property {number} shift
 * @property {number} upsample 1 or 2
 */

/**
 * The scale index 0..63 of every y.
 *
 * @param {Int16Array} z (channel, row, column)
 * @param {number} rows of z
 * @param {number} columns of z
 * @param {Layer[]} layers
 * @param {Int32Array} offset of the quality, one per channel of y
 * @returns {{indexes: Uint8Array, rows: number, columns: number}} (row, column, channel): 4 times the size of z
 */
export function scaleIndexes(z, rows, columns, layers, offset) {
  const area = rows * columns;
  let pixels = new Uint8Array(z.length);
  for (let channel = 0, place = 0; channel * area < z.length; channel++) {
    for (let i = 0; i < area; i++, place++) pixels[i * layers[0].inputs + channel] = clamp(z[place] + 128, 0, 255);
  }
  for (const [number, layer] of layers.entries()) {
    const sums = convolve(pixels, rows, columns, layer);
    const { outputs, multiplier, shift, upsample } = layer;
    if (number === layers.length - 1) {
      pixels = Uint8Array.from(sums, (sum, place) => {
        const o = place % outputs;
        const r = clamp(scaled(sum, multiplier[o], shift), -(2 ** 31), 2 ** 31 - 1);
        return clamp(Math.floor((r + offset[o] + 8) / 16), 0, 63);
      });
    } else {
      pixels = placed(sums, rows, columns, outputs, upsample, (sum, o) => clamp(scaled(sum, multiplier[o], shift), 0, 255));
      rows *= upsample;
      columns *= upsample;
    }
  }
  return { indexes: pixels, rows, columns };
}

/**
 * Step 1: the sums of every pixel and output, (row, column, output).
 *
 * @param {Uint8Array} pixels (row, column, input)
 * @param {number} rows
 * @param {number} columns
 * @param {Layer} layer
 */
function convolve(pixels, rows, columns, { weights, inputs, outputs, k, bias }) {
  // As (row, column, input, output), so that the innermost loop runs through neighbours.
  const turned = new Int32Array(weights.length);
  for (let o = 0, place = 0; o < outputs; o++) {
    for (let tap = 0; tap < k * k * inputs; tap++, place++) turned[tap * outputs + o] = weights[place];
  }
  const half = k >> 1;
  const sums = new Int32Array(rows * columns * outputs);
  // The activations around a pixel that are not 0, and where their weights begin. Four at a time, so that a sum is
  // loaded and stored once for four products: 1.6 times as fast. No order of additions can overflow.
  const values = new Int32Array(k * k * inputs + 3);
  const starts = new Int32Array(k * k * inputs + 3);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let count = 0;
      for (let dy = 0; dy < k; dy++) {
        const y = row + dy - half;
        if (y < 0 || y >= rows) continue;
        for (let dx = 0; dx < k; dx++) {
          const x = column + dx - half;
          if (x < 0 || x >= columns) continue;
          const from = (y * columns + x) * inputs;
          const tap = (dy * k + dx) * inputs;
          for (let i = 0; i < inputs; i++) {
            const a = pixels[from + i];
            if (a === 0) continue;
            values[count] = a;
            starts[count++] = (tap + i) * outputs;
          }
        }
      }
      values.fill(0, count, count + 3);
      const total = sums.subarray((row * columns + column) * outputs, (row * columns + column + 1) * outputs);
      total.set(bias);
      for (let n = 0; n < count; n += 4) {
        const [a, b, c, d] = [values[n], values[n + 1], values[n + 2], values[n + 3]];
        const [i, j, l, m] = [starts[n], starts[n + 1], starts[n + 2], starts[n + 3]];
        for (let o = 0; o < outputs; o++) {
          const products = Math.imul(turned[i + o], a) + Math.imul(turned[j + o], b);
          total[o] += products + Math.imul(turned[l + o], c) + Math.imul(turned[m + o], d);
        }
      }
    }
  }
  return sums;
}

/**
 * Step 2: floor((sum x m + 2^(n - 1)) / 2^n). A double holds integers up to 2^53 and the product has up to 62 bits, so
 * it is taken in two parts of the multiplier. Where n < 16 a result beyond 2^52 is inexact; it is clamped all the same.
 *
 * @param {number} sum
 * @param {number} m
 * @param {number} n
 */
function scaled(sum, m, n) {
  const high = sum * Math.floor(m / 65536);
  const low = sum * (m & 65535) + 2 ** (n - 1);
  if (n < 16) return high * 2 ** (16 - n) + Math.floor(low / 2 ** n);
  return Math.floor((high + Math.floor(low / 65536)) / 2 ** (n - 16));
}

/**
 * Step 3: activations at their places, the outputs of an upsampling layer spread over 2x2 pixels.
 *
 * @param {Int32Array} sums
 * @param {number} rows
 * @param {number} columns
 * @param {number} outputs
 * @param {number} upsample
 * @param {(sum: number, output: number) => number} activation
 */
function placed(sums, rows, columns, outputs, upsample, activation) {
  const channels = outputs / upsample ** 2;
  const result = new Uint8Array(sums.length);
  for (let row = 0, place = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let o = 0; o < outputs; o++, place++) {
        const [dy, dx] = upsample === 2 ? [(o >> 1) & 1, o & 1] : [0, 0];
        const y = row * upsample + dy;
        const x = column * upsample + dx;
        const channel = upsample === 2 ? o >> 2 : o;
        result[(y * columns * upsample + x) * channels + channel] = activation(sums[place], o);
      }
    }
  }
  return result;
}

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
