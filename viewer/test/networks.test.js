/** What surrounds the networks: noise against exact integers, and windows whose ramps add up to one. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { deflateSync } from "node:zlib";

import { codingFromJson } from "../format/coding.js";
import { read } from "../format/container.js";
import { readSections } from "../format/sections.js";
import { Networks } from "../networks/networks.js";
import { Picture } from "../networks/picture.js";
import { placeNoise } from "../networks/noise.js";
import { unpacked } from "../networks/store.js";
import { WINDOW, padded, ramp, windowRows } from "../networks/tiles.js";

const MASK = 2n ** 32n - 1n;

/** FORMAT.md's `mix`. @param {bigint} x */
function mix(x) {
  x = (x ^ (x >> 16n)) & MASK;
  x = (x * 0x7feb352dn) & MASK;
  x ^= x >> 15n;
  x = (x * 0x846ca68bn) & MASK;
  return x ^ (x >> 16n);
}

/** @param {bigint} x */
const bytes = (x) => [0n, 8n, 16n, 24n].reduce((sum, place) => sum + ((x >> place) & 255n), 0n);

test("noise is a function of the place, in exact integers", () => {
  const [channels, rows, columns, top, left] = [4, 3, 5, 16380, 7];
  const found = placeNoise(channels, rows, columns, top, left);
  let place = 0;
  for (let c = 0; c < channels; c++) {
    for (let r = top; r < top + rows; r++) {
      for (let s = left; s < left + columns; s++) {
        const a = mix((mix((mix(BigInt(c)) + BigInt(r)) & MASK) + BigInt(s)) & MASK);
        const value = Number(bytes(a) + bytes(mix(a ^ 0x5bd1e995n)) - 1020n) / Math.sqrt(43690);
        assert.ok(Math.abs(found[place++] - value) < 1e-6);
      }
    }
  }
  assert.deepEqual(placeNoise(4, 1, 1, top + 2, left + 3)[0], found[2 * columns + 3]);
});

test("noise has mean 0 and deviation 1", () => {
  const values = placeNoise(4, 200, 200, 0, 0);
  const mean = values.reduce((sum, value) => sum + value) / values.length;
  const variance = values.reduce((sum, value) => sum + value * value) / values.length;
  assert.ok(Math.abs(mean) < 0.01 && Math.abs(variance - 1) < 0.02, `${mean} ${variance}`);
});

for (const [width, height] of [[1, 1], [1024, 1024], [1025, 16], [2500, 1040], [3100, 2049]]) {
  test(`the windows of ${width}x${height} pixels show each pixel with weights that add up to one`, () => {
    const rows = windowRows(width, height);
    const across = new Float64Array(width);
    for (const { tile, seen, shown } of rows[0]) {
      assert.ok(seen.left <= shown.left && seen.right >= shown.right && seen.left % 16 === 0 && seen.right % 16 === 0);
      assert.ok((seen.right - seen.left) * (seen.bottom - seen.top) <= WINDOW);
      ramp(tile.left, tile.right, shown.left, shown.right, padded(width)).forEach((share, i) => (across[shown.left + i] += share));
    }
    const down = new Float64Array(height);
    for (const [{ tile, seen, shown }] of rows) {
      assert.ok(seen.top <= shown.top && seen.bottom >= shown.bottom);
      ramp(tile.top, tile.bottom, shown.top, shown.bottom, padded(height)).forEach((share, i) => (down[shown.top + i] += share));
    }
    for (const total of [...across, ...down]) assert.ok(Math.abs(total - 1) < 1e-6, String(total));
  });
}

const GOLDEN = new URL("../../tests/golden/", import.meta.url);
const FOLD = 16; // values of a colour at one place

/** A golden stream painted in one colour, by networks that know nothing else. @param {string} name */
async function flatPicture(name) {
  const networks = {
    manifest: { fingerprint: "010203", model: "flat" },
    coding: Promise.resolve(codingFromJson(JSON.parse(readFileSync(new URL("model.json", GOLDEN), "utf8")))),
    dequantise: async (/** @type {any} */ { y, rows, columns }) => ({ data: Float32Array.from(y), channels: 4, rows, columns }),
    paint: async (/** @type {string} */ _, /** @type {object} */ window, /** @type {any} */ { rows, columns }) => {
      const data = [0.1, 0.2, -2].flatMap((value) => new Array(FOLD * 16 * rows * columns).fill(value));
      return { data: Float32Array.from(data), rows: 4 * rows, columns: 4 * columns };
    },
  };
  const stream = read(readFileSync(new URL(`streams/${name}.sodec`, GOLDEN)));
  return new Picture(stream, await readSections(stream), /** @type {any} */ (networks));
}

/** @param {AsyncGenerator<import("../networks/picture.js").Band>} bands */
async function joined(bands) {
  const all = [];
  for await (const { top, height, pixels } of bands) all.push({ top, height, pixels: Array.from(pixels) });
  return all;
}

test("windows are joined, clipped and rounded, and take the alpha of the stream", async () => {
  const [band, ...others] = await joined((await flatPicture("constant-alpha")).bands("fidelity"));
  assert.deepEqual([band.top, band.height, others], [0, 17, []]);
  assert.deepEqual(band.pixels, new Array(1030 * 17).fill([153, 178, 0, 128]).flat());
});

test("a grey picture has one value", async () => {
  const [{ pixels }] = await joined((await flatPicture("one-tile-grey")).bands("full"));
  const value = Math.round(0.299 * 153 + 0.587 * 178.5);
  assert.deepEqual(pixels, new Array(200 * 70).fill([value, value, value, 255]).flat());
});

test("messages are read between windows, and a picture can be stopped there", async () => {
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  /** @type {[number, boolean][]} */
  const shares = [];
  const bands = (await flatPicture("constant-alpha")).bands("fidelity", (share) => {
    shares.push([share, turns > 0]);
    return false;
  });
  assert.deepEqual(await joined(bands), []);
  clearInterval(timer);
  assert.deepEqual(shares, [[1, true]]);
});

/** Networks with graphs that do nothing, and a list of the graphs that they have run. */
function recordedNetworks() {
  /** @type {string[]} */
  const ran = [];
  const graphs = Object.fromEntries(["fidelity", "decoder"].map((name) => {
    return [name, { path: name, bytes: name.length, sha256: createHash("sha256").update(name).digest("hex"), tensors: 0 }];
  }));
  const ort = {
    Tensor: class {
      /** @param {string} type @param {any} data @param {number[]} dims */
      constructor(type, data, dims) {
        Object.assign(this, { type, data, dims });
      }
    },
    InferenceSession: {
      create: async (/** @type {Uint8Array} */ graph) => {
        const name = new TextDecoder().decode(graph);
        const run = async (/** @type {Record<string, any>} */ feeds) => {
          ran.push(name);
          if (name === "fidelity") return { fidelity: { data: feeds.y_hat.data }, at_16: { data: [16] } };
          return { picture: { data: [feeds.at_16.data[0], ...feeds.noise.data.subarray(0, 1)] } };
        };
        return { inputNames: name === "fidelity" ? ["y_hat"] : ["y_hat", "noise", "at_16"], run };
      },
    },
  };
  globalThis.fetch = async (url) => new Response(new URL(String(url)).pathname.slice(1));
  const manifest = /** @type {any} */ ({ coding: graphs.fidelity, tensors: [], graphs });
  return { networks: new Networks(new URL("https://page.example/"), manifest, ort, "wasm", () => {}), ran };
}

const noise = (/** @type {number[]} */ ...size) => new Float32Array(size.reduce((product, side) => product * side)).fill(7);

test("the full picture begins from what the fidelity picture has computed", async () => {
  const { networks, ran } = recordedNetworks();
  const [window, other] = [{}, {}];
  const latent = { data: Float32Array.of(1, 2), channels: 1, rows: 1, columns: 2 };
  const faithful = await networks.paint("fidelity", window, latent, 50, noise);
  assert.deepEqual([...faithful.data, faithful.rows, faithful.columns], [1, 2, 4, 8]);
  assert.deepEqual([...(await networks.paint("full", window, latent, 50, noise)).data], [16, 7]);
  assert.deepEqual(ran, ["fidelity", "decoder"]);
  await networks.paint("full", window, latent, 50, noise); // what was kept is used once
  await networks.paint("full", other, latent, 50, noise);
  assert.deepEqual(ran.slice(2), ["fidelity", "decoder", "fidelity", "decoder"]);
});

test("what is kept for full pictures has no more pixels than one window", async () => {
  const { networks, ran } = recordedNetworks();
  const [rows, columns] = [64, Math.floor(WINDOW / 3 / 16 / 16 / 64)];
  const latent = { data: new Float32Array(rows * columns), channels: 1, rows, columns };
  const windows = [{}, {}, {}, {}];
  for (const window of windows) await networks.paint("fidelity", window, latent, 50, noise);
  ran.length = 0;
  for (const window of windows) await networks.paint("full", window, latent, 50, noise);
  assert.deepEqual(ran, ["fidelity", "decoder", "decoder", "decoder", "decoder"]);
});

test("a picture of another coding is refused by name", () => {
  const networks = { manifest: { fingerprint: "aaaaaa", model: "lite" } };
  const stream = { fingerprint: "010203", width: 1, height: 1, tile: 1024 };
  assert.throws(() => new Picture(/** @type {any} */ (stream), null, /** @type {any} */ (networks)), /010203.*lite aaaaaa/);
});

test("packed weights are unpacked to the same bytes", async () => {
  const data = Uint8Array.from({ length: 1000 }, (_, i) => (i * 37) % 256);
  const planes = Uint8Array.from([...data.filter((_, i) => i % 2 === 0), ...data.filter((_, i) => i % 2 === 1)]);
  const whole = await unpacked(Uint8Array.from(deflateSync(planes)).buffer);
  assert.deepEqual(new Uint8Array(whole), data);
});
