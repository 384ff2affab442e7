/**
 * Geometry of what the networks see at once: windows of the picture with a halo, joined by ramps. As
 * sodec/pipeline/tiles.py; everything is in pixels unless said otherwise.
 */

export const CELL = 16; // pixels of a position of y
const TILE = 1024;
const HALO = 64; // what a window sees beyond its tile
const BLEND = 32; // half the width of a ramp between two tiles

/**
 * A rectangle, half open.
 * @typedef {{left: number, top: number, right: number, bottom: number}} Box
 */

/**
 * A tile of synthesis.
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
  for (let top = 0; top < whole.bottom; top += TILE) {
    const row = [];
    for (let left = 0; left < whole.right; left += TILE) {
      const tile = common({ left, top, right: left + TILE, bottom: top + TILE }, whole);
      const shown = common(grown(tile, BLEND), { ...whole, right: width, bottom: height });
      row.push({ tile, seen: common(grown(tile, HALO), whole), shown });
    }
    rows.push(row);
  }
  return rows;
}

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
