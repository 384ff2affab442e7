/** The networks of a page that `sodec viewer` wrote, run by Node from its folder. */

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

import { read } from "../format/container.js";
import { readSections } from "../format/sections.js";
import { readTile } from "../format/tile.js";
import { Networks } from "../networks/networks.js";
import { Picture } from "../networks/picture.js";
import { readManifest } from "../networks/store.js";

const WASM = "onnxruntime/ort-wasm-simd-threaded";

/** @param {string} folder */
async function open(folder) {
  const base = pathToFileURL(`${folder}/`);
  const ort = await import(new URL("onnxruntime/ort.wasm.min.mjs", base).href);
  ort.env.wasm.wasmPaths = { mjs: new URL(`${WASM}.mjs`, base).href };
  ort.env.wasm.wasmBinary = readFileSync(new URL(`${WASM}.wasm`, base));
  ort.env.wasm.numThreads = 1;
  // Node fetches no files, and the page's modules fetch all that they read.
  globalThis.fetch = async (url) => new Response(readFileSync(/** @type {URL} */ (url)));
  return new Networks(base, await readManifest(base), ort, "wasm", () => {});
}

/**
 * y_hat of a stream of one tile, (channel, row, column).
 *
 * @param {string} folder
 * @param {Uint8Array} bytes
 */
export async function dequantised(folder, bytes) {
  const networks = await open(folder);
  const { payloads, width, height, quality } = read(bytes);
  const { data } = await networks.dequantise(readTile(payloads[0], width, height, quality, await networks.coding), quality);
  return data;
}

/**
 * The pixels of a stream, RGBA.
 *
 * @param {string} folder
 * @param {Uint8Array} bytes
 * @param {"fidelity" | "full"} mode
 */
export async function painted(folder, bytes, mode) {
  const networks = await open(folder);
  const stream = read(bytes);
  const { width, height } = stream;
  const pixels = new Uint8ClampedArray(4 * width * height);
  for await (const band of new Picture(stream, await readSections(stream), networks).bands(mode)) {
    pixels.set(band.pixels, 4 * width * band.top);
  }
  return { pixels, width, height };
}
