/**
 * Decodes in a thread of its own. Fidelity pictures of all files that wait come before full pictures.
 *
 * It is sent {id, bytes, maxPixels} to decode, {id, stop} to stop, {} to load the networks ahead of the first file. It
 * sends {id, type, ...}: "header", "progress", "band", "picture" when one is complete, "error"; and "download" without an id.
 * Its base is the address of this module.
 */

import { read } from "./format/container.js";
import { DownloadError, SodecError } from "./format/errors.js";
import { readSections } from "./format/sections.js";
import { Networks } from "./networks/networks.js";
import { Picture } from "./networks/picture.js";

/** @typedef {"fidelity" | "full"} Mode */
/** @typedef {{id: number, start: number, stream: Stream, picture?: Promise<Picture>}} Job */
/** @typedef {import("./format/container.js").Stream} Stream */

const BASE = new URL(".", import.meta.url);
const UNKNOWN = "the picture can't be decoded in this browser";
const post = /** @type {(message: object, transfer?: Transferable[]) => void} */ (globalThis.postMessage.bind(globalThis));

/** @type {{job: Job, mode: Mode}[]} */
const tasks = [];
/** @type {Set<number>} */
const stopped = new Set();
/** @type {Promise<Networks> | undefined} */
let networks;
let gpu = true; // until it fails
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
    const job = { id, start, stream };
    tasks.push({ job, mode: "fidelity" }, { job, mode: "full" });
    work();
  } catch (error) {
    fail(id, error);
  }
}

function openNetworks() {
  networks ??= Networks.open(BASE, (bytes) => post({ type: "download", bytes }), gpu).catch((error) => {
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
      await decode(task.job, task.mode).catch((error) => decodeWithoutGpu(task.job, task.mode, error));
    } catch (error) {
      if (error instanceof DownloadError) networks = undefined; // the next file tries again
      stop(task.job.id);
      fail(task.job.id, error);
    }
  }
  busy = false;
}

function next() {
  const first = tasks.findIndex(({ mode }) => mode === "fidelity");
  return tasks.splice(Math.max(first, 0), 1)[0];
}

/** @param {Job} job @param {Mode} mode */
async function decode(job, mode) {
  const { id, start, stream } = job;
  job.picture ??= readSections(stream).then(async (alpha) => new Picture(stream, alpha, await openNetworks()));
  const picture = await job.picture;
  const { manifest, provider } = picture.networks;
  if (!picture.networks.has(mode)) return;
  const goOn = (/** @type {number} */ share) => {
    post({ id, type: "progress", mode, share });
    return !stopped.has(id);
  };
  for await (const { top, height, pixels } of picture.bands(mode, goOn)) {
    post({ id, type: "band", mode, top, height, pixels }, [pixels.buffer]);
  }
  if (stopped.has(id)) return;
  const seconds = (performance.now() - start) / 1000;
  const last = mode === "full" || !picture.networks.has("full");
  post({ id, type: "picture", mode, last, seconds, provider, model: manifest.model, version: manifest.version });
}

/** Drivers and browsers differ in what they bear, so what fails is tried once more without a GPU. @param {Job} job @param {Mode} mode @param {unknown} error */
async function decodeWithoutGpu(job, mode, error) {
  if (error instanceof SodecError || !gpu) throw error;
  console.warn("decoding failed and is tried without a GPU", error);
  gpu = false;
  networks = job.picture = undefined;
  for (const waiting of tasks) waiting.job.picture = undefined;
  await decode(job, mode);
}

/** @param {number} id */
function stop(id) {
  stopped.add(id);
  for (let i = tasks.length - 1; i >= 0; i--) if (tasks[i].job.id === id) tasks.splice(i, 1);
}

/** @param {number} id @param {unknown} error */
function fail(id, error) {
  const known = error instanceof SodecError;
  if (!known) console.error(error);
  const kind = known ? error.name : "SodecError";
  post({ id, type: "error", kind, message: known ? error.message : `${UNKNOWN} (${error})` });
}
