/** The networks, run by ONNX Runtime: symbols to y_hat, and y_hat to pictures. docs/onnx.md says what graphs take. */

import { codingFromSafetensors, readSafetensors } from "../format/coding.js";
import { SodecError } from "../format/errors.js";
import { forgetOthers, load, readManifest, unpacked } from "./store.js";

const MOST_THREADS = 8;

/**
 * Features of some cells, (channel, row, column).
 * @typedef {{data: Float32Array, channels: number, rows: number, columns: number}} Latent
 */

/**
 * A picture folded by 4: the value of colour c in row 4 i + a and column 4 j + b is element (16 c + 4 a + b, i, j),
 * about -0.5..0.5.
 * @typedef {{data: Float32Array, rows: number, columns: number}} Folded
 */

export class Networks {
  /** @type {Map<string, Promise<any>>} */
  #sessions = new Map();
  /** What ONNX Runtime is asked for, one after another: with WebGPU it bears no two at once. @type {Promise<any>} */
  #last = Promise.resolve();

  /**
   * @param {URL} base
   * @param {import("./store.js").Manifest} manifest
   * @param {any} ort ONNX Runtime
   * @param {string} provider "webgpu" or "wasm"
   * @param {(bytes: number) => void} arrived
   */
  constructor(base, manifest, ort, provider, arrived) {
    this.base = base;
    this.manifest = manifest;
    this.ort = ort;
    this.provider = provider;
    this.coding = load(base, manifest.coding, arrived).then(codingFromSafetensors);
    // One after another, since the first picture needs the first of them.
    let last = Promise.resolve();
    this.tensors = manifest.tensors.map((file) => {
      const tensors = last.then(() => load(base, file, arrived)).then(unpacked).then(readSafetensors);
      last = tensors.then(() => {});
      return tensors;
    });
    for (const one of [this.coding, last, ...this.tensors]) one.catch(() => {}); // whoever needs it is told
  }

  /**
   * @param {URL} base of the page's files
   * @param {(bytes: number) => void} arrived is called with the bytes of each part of a file that arrives
   * @param {boolean} gpu whether a GPU is used if there is one
   */
  static async open(base, arrived, gpu) {
    const manifest = await readManifest(base);
    forgetOthers(base, manifest).catch(() => {});
    const provider = gpu && (await hasWebGpu()) ? "webgpu" : "wasm";
    const networks = new Networks(base, manifest, await runtime(base, provider), provider, arrived);
    for (const name of ["dequantise", "fidelity"]) networks.#session(name).catch(() => {}); // whoever needs it is told
    return networks;
  }

  /** Whether there is a graph for these pictures. @param {"fidelity" | "full"} mode */
  has(mode) {
    return GRAPHS[mode] in this.manifest.graphs;
  }

  /**
   * @param {import("../format/tile.js").Symbols} symbols
   * @param {number} quality
   * @returns {Promise<Latent>}
   */
  async dequantise({ z, y, rows, columns }, quality) {
    const zRows = Math.ceil(rows / 4);
    const zColumns = Math.ceil(columns / 4);
    const channels = y.length / (rows * columns);
    const data = await this.#run("dequantise", {
      symbols: ["int32", Int32Array.from(y), [1, channels, rows, columns]],
      z: ["int32", Int32Array.from(z), [1, z.length / (zRows * zColumns), zRows, zColumns]],
      quality: ["float32", Float32Array.of(quality), [1]],
    });
    return { data, channels, rows, columns };
  }

  /**
   * @param {"fidelity" | "full"} mode
   * @param {Latent} latent
   * @param {number} quality
   * @param {(channels: number, rows: number, columns: number) => Float32Array} noise of the window
   * @returns {Promise<Folded>}
   */
  async paint(mode, { data, channels, rows, columns }, quality, noise) {
    /** @type {Inputs} */
    const inputs = {
      y_hat: ["float32", data, [1, channels, rows, columns]],
      quality: ["float32", Float32Array.of(quality), [1]],
    };
    if (mode === "full") {
      const [size, place] = [[NOISE_CHANNELS, 4 * rows, 4 * columns], noise(NOISE_CHANNELS, 4 * rows, 4 * columns)];
      inputs.noise = ["float32", place, [1, ...size]];
    }
    return { data: await this.#run(GRAPHS[mode], inputs), rows: 4 * rows, columns: 4 * columns };
  }

  /**
   * @param {string} name
   * @param {Inputs} inputs
   * @returns {Promise<Float32Array>} the first output
   */
  async #run(name, inputs) {
    const session = await this.#session(name);
    const feeds = Object.fromEntries(
      session.inputNames.map((/** @type {string} */ input) => [input, new this.ort.Tensor(...inputs[input])]),
    );
    const [output] = session.outputNames;
    const results = await this.#inTurn(() => session.run(feeds, [output]));
    return results[output].data;
  }

  /** @param {string} name */
  #session(name) {
    let session = this.#sessions.get(name);
    if (!session) this.#sessions.set(name, (session = this.#create(name)));
    return session;
  }

  /** @param {string} name */
  async #create(name) {
    const file = this.manifest.graphs[name];
    if (!file) throw new SodecError(`these weights have no graph ${name}`);
    const graph = new Uint8Array(await load(this.base, file));
    const tensors = await Promise.all(this.tensors.slice(0, file.tensors));
    const externalData = tensors.flatMap((part) => [...part]).map(([path, { data }]) => {
      return { path, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
    });
    const options = { executionProviders: [this.provider], externalData, graphOptimizationLevel: "all", logSeverityLevel: 3 };
    return this.#inTurn(() => this.ort.InferenceSession.create(graph, options));
  }

  /** @param {() => Promise<any>} action */
  #inTurn(action) {
    const result = this.#last.then(action);
    this.#last = result.catch(() => {});
    return result;
  }
}

const NOISE_CHANNELS = 4;
const GRAPHS = { fidelity: "fidelity", full: "decoder" };

/** @typedef {Record<string, [string, Float32Array | Int32Array, number[]]>} Inputs */

/** Whether there is a GPU; one that the processor imitates is ten times slower than WebAssembly. */
async function hasWebGpu() {
  const gpu = /** @type {any} */ (globalThis.navigator)?.gpu;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

/**
 * ONNX Runtime. Threads need a page that is isolated from other origins (headers COOP and COEP); without it one runs.
 *
 * @param {URL} base
 * @param {string} provider
 */
async function runtime(base, provider) {
  const folder = new URL("onnxruntime/", base);
  const [script, wasm] =
    provider === "webgpu"
      ? ["ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify"]
      : ["ort.wasm.min.mjs", "ort-wasm-simd-threaded"];
  const ort = await import(new URL(script, folder).href);
  ort.env.wasm.wasmPaths = { mjs: new URL(`${wasm}.mjs`, folder).href, wasm: new URL(`${wasm}.wasm`, folder).href };
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  ort.env.logLevel = "error";
  return ort;
}
