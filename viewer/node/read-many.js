/**
 * Reads many streams, for tests/test_conformance.py: a line of JSON for each, {"refused": class} where it is refused.
 *
 *   node viewer/node/read-many.js CODING.json STREAMS.json
 *
 * STREAMS.json is a list of streams in hexadecimal digits.
 */

import { readFileSync } from "node:fs";

import { codingFromJson } from "../format/coding.js";
import { SodecError } from "../format/errors.js";
import { streamAnswer } from "./answers.js";

const [coding, streams] = process.argv.slice(2).map((path) => JSON.parse(readFileSync(path, "utf8")));
const integers = codingFromJson(coding);
for (const stream of streams) {
  try {
    console.log(JSON.stringify(await streamAnswer(Buffer.from(stream, "hex"), integers)));
  } catch (error) {
    if (!(error instanceof SodecError)) throw error;
    console.log(JSON.stringify({ refused: error.name }));
  }
}
