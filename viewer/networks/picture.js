/**
 * A stream to its pixels, a row of windows at a time, so that memory holds one row of floats and not the picture. As
 * sodec/pipeline/decoder.py.
 */

import { tileBoxes } from "../format/container.js";
import { UnknownModelError } from "../format/errors.js";
import { readTile } from "../format/tile.js";
import { placeNoise } from "./noise.js";
import { CELL, common, padded, ramp, windowRows } from "./tiles.js";

const FOLD = 4; // networks give pictures folded by it
const KEPT_TILES = 16; // a tile's y_hat has at most 2 MB
const GREY = [0.299, 0.587, 0.114];

/**
 * Rows of pixels that are finished.
 * @typedef {object} Band
 * @property {number} top
 * @property {number} height
 * @property {Uint8ClampedArray} pixels RGBA, row by row
 */

/** What is decoded of a stream: its tiles' y_hat, kept between the fidelity and the full picture. */
export class Picture {
  /** @type {Map<number, import("./networks.js").Latent>} the latest last */
  #latents = new Map();

  /**
   * @param {import("../format/container.js").Stream} stream
   * @param {Uint8Array | null} alpha
   * @param {import("./networks.js").Networks} networks
   * @throws {UnknownModelError}
   */
  constructor(stream, alpha, networks) {
    const { fingerprint, model } = networks.manifest;
    if (stream.fingerprint !== fingerprint) {
      throw new UnknownModelError(
        `the file needs the weights ${stream.fingerprint}, which are not here: this page has ${model} ${fingerprint}`,
      );
    }
    this.stream = stream;
    this.alpha = alpha;
    this.networks = networks;
    this.windows = windowRows(stream.width, stream.height);
    this.boxes = tileBoxes(stream).map(({ left, top, width, height }) => {
      return { left: left / CELL, top: top / CELL, right: Math.ceil((left + width) / CELL), bottom: Math.ceil((top + height) / CELL) };
    });
  }

  /**
   * @param {"fidelity" | "full"} mode
   * @param {(share: number) => boolean} goOn is called with what is done of 1, after each window; false ends it
   * @returns {AsyncGenerator<Band>}
   */
  async *bands(mode, goOn = () => true) {
    const { width, grey } = this.stream;
    const rows = this.windows;
    const count = rows.length * rows[0].length;
    let done = 0;
    let carried = new Float32Array(0); // what the next row of windows shows too, (row, column, colour)
    for (const [number, row] of rows.entries()) {
      const [{ top, bottom }] = row.map(({ shown }) => shown);
      const band = new Float32Array((bottom - top) * width * 3);
      band.set(carried);
      for (const window of row) {
        await this.#add(band, top, window, mode);
        // A window takes a second or more, without a pause in which messages would be read.
        await new Promise((resolve) => setTimeout(resolve));
        if (!goOn(++done / count)) return;
      }
      const next = rows[number + 1]?.[0].shown.top ?? bottom;
      const pixels = rounded(band, width, next - top, grey);
      this.#addAlpha(pixels, top);
      yield { top, height: next - top, pixels };
      carried = band.slice((next - top) * width * 3);
    }
  }

  /**
   * Adds what a window shows.
   *
   * @param {Float32Array} band
   * @param {number} bandTop
   * @param {import("./tiles.js").Window} window
   * @param {"fidelity" | "full"} mode
   */
  async #add(band, bandTop, window, mode) {
    const { tile, seen, shown } = window;
    const { width, height, quality } = this.stream;
    const latent = await this.#latent({
      left: seen.left / CELL, top: seen.top / CELL, right: seen.right / CELL, bottom: seen.bottom / CELL,
    });
    const noise = (/** @type {number[]} */ ...[channels, rows, columns]) => {
      return placeNoise(channels, rows, columns, seen.top / FOLD, seen.left / FOLD);
    };
    const { data, rows, columns } = await this.networks.paint(mode, window, latent, quality, noise);
    const down = ramp(tile.top, tile.bottom, shown.top, shown.bottom, padded(height));
    const across = ramp(tile.left, tile.right, shown.left, shown.right, padded(width));
    const plane = rows * columns;
    for (let y = shown.top; y < shown.bottom; y++) {
      const line = y - seen.top;
      const rowBase = (line % FOLD) * FOLD * plane + Math.floor(line / FOLD) * columns;
      const weight = 255 * down[y - shown.top];
      let to = ((y - bandTop) * width + shown.left) * 3;
      for (let x = shown.left; x < shown.right; x++) {
        const place = x - seen.left;
        const from = rowBase + (place % FOLD) * plane + (place >> 2);
        const share = weight * across[x - shown.left];
        for (let colour = 0; colour < 3; colour++, to++) {
          const value = data[from + colour * FOLD * FOLD * plane] + 0.5;
          band[to] += share * (value < 0 ? 0 : value > 1 ? 1 : value);
        }
      }
    }
  }

  /** y_hat of a window. @param {import("./tiles.js").Box} window in cells @returns {Promise<import("./networks.js").Latent>} */
  async #latent(window) {
    const rows = window.bottom - window.top;
    const columns = window.right - window.left;
    let whole = null;
    for (const [number, box] of this.boxes.entries()) {
      const shared = common(box, window);
      const lines = shared.bottom - shared.top;
      const length = shared.right - shared.left;
      if (lines <= 0 || length <= 0) continue;
      const tile = await this.#tile(number);
      if (lines === rows && length === columns && tile.rows === rows && tile.columns === columns) return tile;
      whole ??= { data: new Float32Array(tile.channels * rows * columns), channels: tile.channels, rows, columns };
      for (let channel = 0; channel < tile.channels; channel++) {
        for (let line = shared.top; line < shared.bottom; line++) {
          const from = (channel * tile.rows + line - box.top) * tile.columns + shared.left - box.left;
          const to = (channel * rows + line - window.top) * columns + shared.left - window.left;
          whole.data.set(tile.data.subarray(from, from + length), to);
        }
      }
    }
    if (!whole) throw new Error("a window lies within the picture");
    return whole;
  }

  /** y_hat of a tile. @param {number} number */
  async #tile(number) {
    let latent = this.#latents.get(number);
    if (!latent) {
      const { payloads, quality, width, height, tile } = this.stream;
      const { left, top } = this.boxes[number];
      const [w, h] = [Math.min(tile, width - left * CELL), Math.min(tile, height - top * CELL)];
      const symbols = readTile(payloads[number], w, h, quality, await this.networks.coding);
      latent = await this.networks.dequantise(symbols, quality);
    }
    this.#latents.delete(number);
    this.#latents.set(number, latent);
    // A window reaches into the tiles of three rows, so a row of windows reads each tile once if these are kept.
    const most = Math.max(KEPT_TILES, 3 * Math.ceil(this.stream.width / this.stream.tile));
    for (const oldest of this.#latents.keys()) {
      if (this.#latents.size <= most) break;
      this.#latents.delete(oldest);
    }
    return latent;
  }

  /** @param {Uint8ClampedArray} pixels @param {number} top */
  #addAlpha(pixels, top) {
    if (!this.alpha) return;
    const first = top * this.stream.width;
    for (let i = 0; 4 * i < pixels.length; i++) pixels[4 * i + 3] = this.alpha[first + i];
  }
}

/**
 * The first rows of a band as RGBA.
 *
 * @param {Float32Array} band in 0..255
 * @param {number} width
 * @param {number} height
 * @param {boolean} grey
 */
function rounded(band, width, height, grey) {
  const pixels = new Uint8ClampedArray(width * height * 4); // which rounds what it is given
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = [band[3 * i], band[3 * i + 1], band[3 * i + 2]];
    const value = GREY[0] * r + GREY[1] * g + GREY[2] * b;
    pixels[4 * i] = grey ? value : r;
    pixels[4 * i + 1] = grey ? value : g;
    pixels[4 * i + 2] = grey ? value : b;
    pixels[4 * i + 3] = 255;
  }
  return pixels;
}
