/**
 * Geometry of what the networks see at once: windows of the picture with a halo, joined by ramps. As
 * sodec/pipeline/tiles.py; everything is in pixels unless said otherwise.
 */

export const CELL = 16; // pixels of a position of y
export const WINDOW = 2_300_000; // pixels of the largest window
const SMALLEST = 512; // a side, about, of the parts that a picture is divided into
const HALO = 64; // what a window sees beyond its part
const BLEND = 32; // half the width of a ramp between two tiles

/**
 * A rectangle, half open.
 * @typedef {{left: number, top: number, right: number, bottom: number}} Box
 */

/**
 * A part that is synthesised at once.
 * @typedef {object} Window
 * @property {Box} tile
 * @property {Box} seen what the networks are given
 * @property {Box} shown what of their picture is used, weighted by ramps
 */

/** The size that whole cells cover. @param {number} size */
export const padded = (size) => Math.ceil(size / CELL) * CELL;

/**
 * The windows of a picture, row by row.
 *
 * @param {number} width
 * @param {number} height
 * @returns {Window[][]}
 */
export function windowRows(width, height) {
  const whole = { left: 0, top: 0, right: padded(width), bottom: padded(height) };
  const rows = [];
  const [columns, lines] = divided(whole.right, whole.bottom);
  const [across, down] = [edges(whole.right, columns), edges(whole.bottom, lines)];
  for (let line = 0; line < lines; line++) {
    const row = [];
    for (let column = 0; column < columns; column++) {
      const tile = { left: across[column], top: down[line], right: across[column + 1], bottom: down[line + 1] };
      const shown = common(grown(tile, BLEND), { ...whole, right: width, bottom: height });
      row.push({ tile, seen: common(grown(tile, HALO), whole), shown });
    }
    rows.push(row);
  }
  return rows;
}

/**
 * Columns and rows of the equal parts of which, with their halos, no one has more than WINDOW pixels and all together
 * have the fewest.
 *
 * @param {number} width
 * @param {number} height
 */
function divided(width, height) {
  let [fewest, columns, rows] = [Infinity, 1, 1];
  for (let c = 1; c < Math.floor(width / SMALLEST) + 2; c++) {
    for (let r = 1; r < Math.floor(height / SMALLEST) + 2; r++) {
      if (reach(width, c) * reach(height, r) > WINDOW) continue;
      const pixels = (width + 2 * HALO * (c - 1)) * (height + 2 * HALO * (r - 1));
      if (pixels < fewest) [fewest, columns, rows] = [pixels, c, r];
      break;
    }
  }
  return [columns, rows];
}

/** Where equal parts of an axis begin and end, in multiples of HALO. @param {number} size @param {number} count */
const edges = (size, count) =>
  Array.from({ length: count + 1 }, (_, part) => Math.min(size, Math.floor((part * steps(size)) / count) * HALO));

/** The size of the largest of equal parts of an axis, with its halo. @param {number} size @param {number} count */
const reach = (size, count) =>
  count === 1 ? size : (Math.ceil(steps(size) / count) + Math.min(2, count - 1)) * HALO;

/** @param {number} size */
const steps = (size) => Math.ceil(size / HALO);

/**
 * Weights of the pixels low..high - 1 for the tile start..stop of an axis of `size` pixels. A straight line over
 * 2 BLEND pixels at each inner edge, so that the weights of all tiles add up to one.
 *
 * @param {number} start
 * @param {number} stop
 * @param {number} low
 * @param {number} high
 * @param {number} size
 */
export function ramp(start, stop, low, high, size) {
  return Float32Array.from({ length: high - low }, (_, i) => {
    const place = low + i + 0.5;
    const rising = start > 0 ? clamp((place - start + BLEND) / (2 * BLEND)) : 1;
    const falling = stop < size ? clamp((place - stop + BLEND) / (2 * BLEND)) : 0;
    return rising - falling;
  });
}

/** @param {Box} box @param {number} by @returns {Box} */
function grown({ left, top, right, bottom }, by) {
  return { left: left - by, top: top - by, right: right + by, bottom: bottom + by };
}

/** What both cover. @param {Box} one @param {Box} other @returns {Box} */
export function common(one, other) {
  return {
    left: Math.max(one.left, other.left), top: Math.max(one.top, other.top),
    right: Math.min(one.right, other.right), bottom: Math.min(one.bottom, other.bottom),
  };
}

/** @param {number} value */
const clamp = (value) => Math.min(Math.max(value, 0), 1);
