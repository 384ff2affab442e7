/**
 * Decodes in a thread of its own. Fidelity pictures of all files that wait come before full pictures.
 *
 * It is sent {id, bytes, maxPixels} to decode, {id, stop} to stop, {} to load the networks ahead of the first file. It
 * sends {id, type, ...}: "header", "band", "picture" when one is complete, "error"; and "download" without an id. Its base
 * is the address of this module.
 */

import { read } from "./format/container.js";
import { SodecError } from "./format/errors.js";
import { readSections } from "./format/sections.js";
import { Networks } from "./networks/networks.js";
import { Picture } from "./networks/picture.js";

/** @typedef {"fidelity" | "full"} Mode */
/** @typedef {{id: number, mode: Mode, start: number, open: () => Promise<Picture>}} Task */

const BASE = new URL(".", import.meta.url);
const UNKNOWN = "the picture can't be decoded in this browser";
const post = /** @type {(message: object, transfer?: Transferable[]) => void} */ (globalThis.postMessage.bind(globalThis));

/** @type {Task[]} */
const tasks = [];
/** @type {Set<number>} */
const stopped = new Set();
/** @type {Promise<Networks> | undefined} */
let networks;
let busy = false;

globalThis.addEventListener("message", ({ data }) => {
  if ("bytes" in data) accept(data);
  else if (data.stop) stop(data.id);
  else openNetworks().catch(() => {}); // the file that needs them tells
});

/** @param {{id: number, bytes: ArrayBuffer, maxPixels: number}} request */
function accept({ id, bytes, maxPixels }) {
  const start = performance.now();
  try {
    const stream = read(new Uint8Array(bytes), { maxPixels });
    const { width, height, quality, grey, fingerprint, sections } = stream;
    const alpha = sections.some(({ type }) => type === 1);
    post({ id, type: "header", width, height, quality, grey, alpha, fingerprint, bytes: bytes.byteLength });
    /** @type {Promise<Picture> | undefined} */
    let picture;
    const open = () => (picture ??= openPicture(stream));
    for (const mode of /** @type {Mode[]} */ (["fidelity", "full"])) tasks.push({ id, mode, start, open });
    work();
  } catch (error) {
    fail(id, error);
  }
}

/** @param {import("./format/container.js").Stream} stream */
async function openPicture(stream) {
  return new Picture(stream, await readSections(stream), await openNetworks());
}

function openNetworks() {
  networks ??= Networks.open(BASE, (bytes) => post({ type: "download", bytes })).catch((error) => {
    networks = undefined; // the next file tries again
    throw error;
  });
  return networks;
}

async function work() {
  if (busy) return;
  busy = true;
  for (let task = next(); task; task = next()) {
    try {
      await decode(task);
    } catch (error) {
      stop(task.id);
      fail(task.id, error);
    }
  }
  busy = false;
}

function next() {
  const first = tasks.findIndex(({ mode }) => mode === "fidelity");
  return tasks.splice(Math.max(first, 0), 1)[0];
}

/** @param {Task} task */
async function decode({ id, mode, start, open }) {
  const picture = await open();
  const { manifest, provider } = picture.networks;
  if (!picture.networks.has(mode)) return;
  for await (const { top, height, pixels } of picture.bands(mode)) {
    if (stopped.has(id)) return;
    post({ id, type: "band", mode, top, height, pixels }, [pixels.buffer]);
  }
  const seconds = (performance.now() - start) / 1000;
  const last = mode === "full" || !picture.networks.has("full");
  post({ id, type: "picture", mode, last, seconds, provider, model: manifest.model, version: manifest.version });
}

/** @param {number} id */
function stop(id) {
  stopped.add(id);
  for (let i = tasks.length - 1; i >= 0; i--) if (tasks[i].id === id) tasks.splice(i, 1);
}

/** @param {number} id @param {unknown} error */
function fail(id, error) {
  const known = error instanceof SodecError;
  if (!known) console.error(error);
  const kind = known ? error.name : "SodecError";
  post({ id, type: "error", kind, message: known ? error.message : `${UNKNOWN} (${error})` });
}
