/** The networks, run by ONNX Runtime: symbols to y_hat, and y_hat to pictures. docs/onnx.md says what graphs take. */

import { codingFromSafetensors, readSafetensors } from "../format/coding.js";
import { SodecError } from "../format/errors.js";
import { forgetOthers, load, readManifest, unpacked } from "./store.js";
import { CELL, WINDOW } from "./tiles.js";

const MOST_THREADS = 8;
const KEPT_PIXELS = WINDOW; // of all windows whose fidelity decoder's outputs are kept, at 30 bytes each

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
  /** The latest call of ONNX Runtime; the next one waits for it, since with WebGPU two at once fail. @type {Promise<any>} */
  #last = Promise.resolve();
  /**
   * What the fidelity decoder gave for the latest windows, which their full pictures begin from; the latest last.
   * @type {Map<object, {outputs: Tensors, pixels: number}>}
   */
  #kept = new Map();

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
    for (const one of [this.coding, last, ...this.tensors]) one.catch(() => {}); // whoever awaits it gets the error
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
    for (const name of ["dequantise", "fidelity"]) networks.#session(name).catch(() => {}); // whoever awaits it gets the error
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
    const { y_hat } = await this.#run("dequantise", {
      symbols: this.#tensor("int32", Int32Array.from(y), channels, rows, columns),
      z: this.#tensor("int32", Int32Array.from(z), z.length / (zRows * zColumns), zRows, zColumns),
      quality: new this.ort.Tensor("float32", Float32Array.of(quality), [1]),
    });
    return { data: y_hat.data, channels, rows, columns };
  }

  /**
   * The full picture of a window begins from what the fidelity decoder gave for its fidelity picture, if that is kept.
   *
   * @param {"fidelity" | "full"} mode
   * @param {object} window the same object for both pictures of a window
   * @param {Latent} latent
   * @param {number} quality
   * @param {(channels: number, rows: number, columns: number) => Float32Array} noise of the window
   * @returns {Promise<Folded>}
   */
  async paint(mode, window, { data, channels, rows, columns }, quality, noise) {
    const inputs = {
      y_hat: this.#tensor("float32", data, channels, rows, columns),
      quality: new this.ort.Tensor("float32", Float32Array.of(quality), [1]),
    };
    const outputs = this.#kept.get(window)?.outputs ?? (await this.#run("fidelity", inputs));
    const folded = { rows: 4 * rows, columns: 4 * columns };
    if (mode === "fidelity") {
      if (this.has("full")) this.#keep(window, outputs, rows * columns * CELL ** 2);
      return { data: outputs.fidelity.data, ...folded };
    }
    this.#kept.delete(window);
    const size = /** @type {const} */ ([NOISE_CHANNELS, folded.rows, folded.columns]);
    const { picture } = await this.#run("decoder", {
      ...inputs, ...outputs, noise: this.#tensor("float32", noise(...size), ...size),
    });
    return { data: picture.data, ...folded };
  }

  /** Keeps what the fidelity decoder gave, and no more than KEPT_PIXELS of all. @param {object} window @param {Tensors} outputs @param {number} pixels */
  #keep(window, outputs, pixels) {
    this.#kept.set(window, { outputs, pixels });
    let all = [...this.#kept.values()].reduce((sum, one) => sum + one.pixels, 0);
    for (const [oldest, one] of this.#kept) {
      if (all <= KEPT_PIXELS) break;
      this.#kept.delete(oldest);
      all -= one.pixels;
    }
  }

  /** A batch of one. @param {string} type @param {Float32Array | Int32Array} data @param {number[]} size */
  #tensor(type, data, ...size) {
    return new this.ort.Tensor(type, data, [1, ...size]);
  }

  /**
   * @param {string} name
   * @param {Tensors} inputs those that the graph does not take are ignored
   * @returns {Promise<Tensors>}
   */
  async #run(name, inputs) {
    const session = await this.#session(name);
    const feeds = Object.fromEntries(session.inputNames.map((/** @type {string} */ input) => [input, inputs[input]]));
    return this.#inTurn(() => session.run(feeds));
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

/** ONNX Runtime's tensors by name. @typedef {Record<string, any>} Tensors */

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
