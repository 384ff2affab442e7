#!/usr/bin/env node
/**
 * The decoder as a command line, for tests/conformance/check.py; the README there says what each command prints.
 *
 *   node viewer/node/cli.js symbols CODING.json STREAM
 *   node viewer/node/cli.js payload CASE.json
 */

import { readFile } from "node:fs/promises";

import { codingFromJson } from "../format/coding.js";
import { SodecError } from "../format/errors.js";
import { payloadAnswer, streamAnswer } from "./answers.js";

const REFUSED = 2;

/** @param {string} path */
const readJson = async (path) => JSON.parse(await readFile(path, "utf8"));

/** @type {Record<string, (...paths: string[]) => Promise<unknown>>} */
const COMMANDS = {
  symbols: async (coding, stream) => streamAnswer(await readFile(stream), codingFromJson(await readJson(coding))),

  async payload(path) {
    const { payload, sections } = await readJson(path);
    return payloadAnswer(Buffer.from(payload, "hex"), sections);
  },
};

const [command, ...paths] = process.argv.slice(2);
try {
  const names = Object.keys(COMMANDS);
  if (!names.includes(command)) throw new SodecError(`the command must be one of ${names.join(", ")} (got ${command})`);
  console.log(JSON.stringify(await COMMANDS[command](...paths)));
} catch (error) {
  if (!(error instanceof SodecError)) throw error;
  console.error(error.message);
  process.exitCode = REFUSED;
}
