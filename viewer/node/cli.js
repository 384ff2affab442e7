#!/usr/bin/env node
/**
 * The decoder as a command line, for tests/conformance/check.py; the README there says what each command answers.
 *
 *   node viewer/node/cli.js symbols CODING.json STREAM
 *   node viewer/node/cli.js payload CASE.json
 *   node viewer/node/cli.js --site FOLDER y_hat STREAM OUT
 *   node viewer/node/cli.js --site FOLDER picture fidelity|full STREAM OUT.png
 *
 * FOLDER is a page that `sodec viewer` wrote, whose weights and ONNX Runtime are used.
 */

import { readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";

import { codingFromJson } from "../format/coding.js";
import { SodecError } from "../format/errors.js";
import { payloadAnswer, streamAnswer } from "./answers.js";
import { dequantised, painted } from "./networks.js";
import { encodePng } from "./png.js";

const REFUSED = 2;
const { values: { site }, positionals: [command, ...given] } = parseArgs({
  options: { site: { type: "string", default: "." } },
  allowPositionals: true,
});

/** @param {string} path */
const readJson = async (path) => JSON.parse(await readFile(path, "utf8"));
/** @param {unknown} answer */
const print = (answer) => console.log(JSON.stringify(answer));

/** @type {Record<string, (...arguments_: string[]) => Promise<unknown>>} */
const COMMANDS = {
  async symbols(coding, stream) {
    print(await streamAnswer(await readFile(stream), codingFromJson(await readJson(coding))));
  },

  async payload(path) {
    const { payload, sections } = await readJson(path);
    print(payloadAnswer(Buffer.from(payload, "hex"), sections));
  },

  async y_hat(stream, out) {
    await writeFile(out, await dequantised(site, await readFile(stream)));
  },

  async picture(mode, stream, out) {
    const { pixels, width, height } = await painted(site, await readFile(stream), mode === "full" ? "full" : "fidelity");
    await writeFile(out, encodePng(pixels, width, height));
  },
};

try {
  const names = Object.keys(COMMANDS);
  if (!names.includes(command)) throw new SodecError(`the command must be one of ${names.join(", ")} (got ${command})`);
  await COMMANDS[command](...given);
  process.exit(0); // ONNX Runtime would keep Node alive
} catch (error) {
  if (!(error instanceof SodecError)) throw error;
  console.error(error.message);
  process.exit(REFUSED);
}
