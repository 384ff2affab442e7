/** Files of the page: the networks' weights and graphs, kept by the browser so that they are fetched once. */

import { DownloadError } from "../format/errors.js";

const CACHE = "sodec-weights";

/**
 * A file of weights.json.
 * @typedef {object} StoredFile
 * @property {string} path beside weights.json
 * @property {number} bytes
 * @property {string} sha256
 */

/**
 * What weights.json says.
 * @typedef {object} Manifest
 * @property {string} model
 * @property {string} version of the weights
 * @property {string} fingerprint of the coding, as streams name it
 * @property {StoredFile} coding
 * @property {StoredFile[]} tensors of the networks, 16-bit floats, packed
 * @property {Record<string, StoredFile & {tensors: number}>} graphs by name, without weights: each needs the first so
 *   many files of tensors
 */

/** @param {URL} base of the page's files @returns {Promise<Manifest>} */
export async function readManifest(base) {
  const response = await fetched(new URL("weights.json", base), { cache: "no-cache" });
  return response.json();
}

/**
 * The bytes of a file, from the browser's cache if they are there.
 *
 * @param {URL} base
 * @param {StoredFile} file
 * @param {(bytes: number) => void} [arrived] is called with the number of bytes of each part that arrives
 */
export async function load(base, { path, sha256 }, arrived = () => {}) {
  const url = new URL(path, base);
  url.search = `sha256=${sha256.slice(0, 16)}`;
  const cache = await openCache();
  const kept = await cache?.match(url);
  if (kept) return kept.arrayBuffer();
  const bytes = await read(await fetched(url), arrived);
  // Pages that are not secure have no sums; there a cache is missing too.
  if (globalThis.crypto?.subtle && (await sumOf(bytes)) !== sha256) {
    throw new DownloadError(`the decoder's file ${url.pathname} is damaged, or of other weights than weights.json names`);
  }
  // A full disk, or a browser that keeps nothing, is no reason not to show the picture.
  await cache?.put(url, new Response(bytes)).catch(() => {});
  return bytes;
}

/**
 * A file of 16-bit numbers that `sodec viewer` packed: a zlib stream of all low bytes, then of all high bytes.
 *
 * @param {ArrayBuffer} bytes
 */
export async function unpacked(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const half = planes.length / 2;
  const whole = new Uint8Array(planes.length);
  for (let i = 0; i < half; i++) {
    whole[2 * i] = planes[i];
    whole[2 * i + 1] = planes[half + i];
  }
  return whole.buffer;
}

/** Drops the cached files that the manifest does not name: those of earlier weights. @param {URL} base @param {Manifest} manifest */
export async function forgetOthers(base, { coding, tensors, graphs }) {
  const cache = await openCache();
  const named = [coding, ...tensors, ...Object.values(graphs)].map(({ path, sha256 }) => {
    return `${new URL(path, base)}?sha256=${sha256.slice(0, 16)}`;
  });
  for (const request of (await cache?.keys()) ?? []) {
    if (request.url.startsWith(base.href) && !named.includes(request.url)) await cache?.delete(request);
  }
}

/** SHA-256 in hexadecimal digits. @param {ArrayBuffer} bytes */
async function sumOf(bytes) {
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Null where there is none: on pages that are not secure, and in some private windows. */
async function openCache() {
  return globalThis.caches?.open(CACHE).catch(() => null) ?? null;
}

/** @param {URL} url @param {RequestInit} [options] */
async function fetched(url, options) {
  let response;
  try {
    response = await fetch(url, { credentials: "omit", ...options });
  } catch {
    throw new DownloadError(`the decoder's file ${url.pathname} can't be fetched: there is no connection, or the page may not reach it`);
  }
  if (!response.ok) throw new DownloadError(`the decoder's file ${url.pathname} can't be fetched: the server answers ${response.status}`);
  return response;
}

/** @param {Response} response @param {(bytes: number) => void} arrived */
async function read(response, arrived) {
  const parts = [];
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    arrived(part.value.length);
  }
  return new Blob(/** @type {BlobPart[]} */ (parts)).arrayBuffer();
}
