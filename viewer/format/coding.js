/** Where a coding's integers come from: coding.safetensors of a folder of weights, or JSON as in tests/golden. */

const ARRAYS = { I8: Int8Array, I32: Int32Array, F16: Uint16Array, F32: Float32Array };

/**
 * The tensors of a safetensors file, as views of its bytes where they are aligned. 16-bit floats stay as their bits.
 *
 * @param {ArrayBuffer} buffer
 * @returns {Map<string, {shape: number[], data: Int8Array | Int32Array | Uint16Array | Float32Array}>}
 */
export function readSafetensors(buffer) {
  const headerBytes = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, headerBytes)));
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const bytes = buffer.slice(8 + headerBytes + start, 8 + headerBytes + end);
    tensors.set(name, { shape, data: new ARRAYS[/** @type {keyof typeof ARRAYS} */ (dtype)](bytes) });
  }
  return tensors;
}

/**
 * @param {ArrayBuffer} buffer of coding.safetensors
 * @returns {import("./tile.js").Coding}
 */
export function codingFromSafetensors(buffer) {
  const tensors = readSafetensors(buffer);
  /** @param {string} name */
  const get = (name) => {
    const tensor = tensors.get(name);
    if (!tensor) throw new Error(`the coding has no tensor ${name}`);
    return tensor;
  };
  /** @param {string} name @returns {import("./rans.js").TableSet} */
  const tablesOf = (name) => {
    const [cumulative, offsets, minimums, precision] = ["cumulative", "offsets", "minimums", "precision"].map(
      (field) => /** @type {Int32Array} */ (get(`${name}.${field}`).data),
    );
    return {
      precision: precision[0],
      tables: Array.from(minimums, (minimum, i) => ({ minimum, cumulative: cumulative.subarray(offsets[i], offsets[i + 1]) })),
    };
  };
  const zTables = [];
  for (let name = "z_tables"; tensors.has(`${name}.precision`); name = `z_tables.${zTables.length}`) zTables.push(tablesOf(name));
  const layers = Array.from({ length: get("scale_network.layers").data[0] }, (_, i) => {
    const { data, shape } = get(`scale_network.${i}.weights`);
    const [shift, upsample] = get(`scale_network.${i}.shift_upsample`).data;
    return {
      weights: /** @type {Int8Array} */ (data), outputs: shape[0], k: shape[1], inputs: shape[3], shift, upsample,
      bias: /** @type {Int32Array} */ (get(`scale_network.${i}.bias`).data),
      multiplier: /** @type {Int32Array} */ (get(`scale_network.${i}.multiplier`).data),
    };
  });
  const { data, shape: [rows, channels] } = get("offsets");
  const offsets = Array.from({ length: rows }, (_, q) => {
    return /** @type {Int32Array} */ (data.subarray(q * channels, (q + 1) * channels));
  });
  return { zTables, yTables: tablesOf("y_tables"), layers, offsets };
}

/**
 * @param {any} json as tests/golden/model.json
 * @returns {import("./tile.js").Coding}
 */
export function codingFromJson({ z_tables: z, y_tables: y, layers, offsets }) {
  const zTables = [];
  for (let first = 0; first < z.tables.length; first += 255) {
    zTables.push(tablesFromJson({ ...z, tables: z.tables.slice(first, first + 255) }));
  }
  return {
    zTables,
    yTables: tablesFromJson(y),
    layers: layers.map((/** @type {any} */ layer) => ({
      weights: Int8Array.from(layer.weights.flat(3)),
      outputs: layer.weights.length, k: layer.weights[0].length, inputs: layer.weights[0][0][0].length,
      bias: Int32Array.from(layer.bias), multiplier: Int32Array.from(layer.multiplier),
      shift: layer.shift, upsample: layer.upsample,
    })),
    offsets: offsets.map((/** @type {number[]} */ row) => Int32Array.from(row)),
  };
}

/**
 * @param {{precision: number, tables: [number, number[]][]}} json
 * @returns {import("./rans.js").TableSet}
 */
export function tablesFromJson({ precision, tables }) {
  return {
    precision,
    tables: tables.map(([minimum, cumulative]) => ({ minimum, cumulative: Int32Array.from(cumulative) })),
  };
}
