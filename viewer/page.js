/** The page: takes a file by choice, drop or ?src=, gives it to <sodec-img>, and says what is known of it. */

import { SodecImage, fileName } from "./sodec-img.js";

/** @template {Element} T @param {string} id @param {new () => T} kind @returns {T} */
function part(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

const picture = part("picture", SodecImage);
const input = part("file", HTMLInputElement);
const problem = part("problem", HTMLParagraphElement);
const facts = part("facts", HTMLDListElement);

/** @type {Map<string, string>} */
let known = new Map();

/** Begins with another file. @param {string} name */
function begin(name) {
  known = new Map([["File", name]]);
  facts.hidden = problem.hidden = true;
  picture.hidden = false;
  document.title = `${name} – sodec viewer`;
}

function showFacts() {
  facts.replaceChildren(
    ...[...known].flatMap(([term, value]) => ["dt", "dd"].map((tag, column) => {
      return Object.assign(document.createElement(tag), { textContent: column ? value : term });
    })),
  );
  facts.hidden = false;
}

/** @param {File | undefined} file */
function open(file) {
  if (!file) return;
  begin(file.name);
  picture.open(file);
}

/** Only files of this page's own server: the page reaches no other. @param {string} source */
function openAddress(source) {
  if (!URL.canParse(source, location.href)) return refuse(`${source} is not an address.`);
  const url = new URL(source, location.href);
  begin(fileName(url));
  if (url.origin !== location.origin) {
    return refuse(`${url.href} is on another server, which this page does not reach. Save the file and drop it here.`);
  }
  picture.setAttribute("loading", "eager");
  picture.src = url.href;
}

/** @param {string} sentence */
function refuse(sentence) {
  picture.hidden = true;
  problem.textContent = sentence;
  problem.hidden = false;
}

picture.addEventListener("sodec-header", (event) => {
  const { width, height, bytes, quality, grey, alpha, fingerprint } = /** @type {CustomEvent} */ (event).detail;
  const kind = `${grey ? ", grey" : ""}${alpha ? ", with transparency" : ""}`;
  known.set("Size", `${width} × ${height} pixels${kind}`);
  known.set("Bytes", `${bytes.toLocaleString("en")} (${((8 * bytes) / (width * height)).toFixed(3)} bits per pixel)`);
  known.set("Quality", String(quality));
  known.set("Weights", fingerprint);
  showFacts();
});

picture.addEventListener("sodec-picture", (event) => {
  const { mode, seconds, provider, model, version } = /** @type {CustomEvent} */ (event).detail;
  const by = provider === "webgpu" ? "WebGPU" : crossOriginIsolated ? "WebAssembly, threads" : "WebAssembly";
  known.set(mode === "full" ? "Full picture" : "Fidelity picture", `after ${seconds.toFixed(2)} s (${by})`);
  known.set("Weights", `${model} ${version}`);
  showFacts();
});

input.addEventListener("change", () => open(input.files?.[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  open(event.dataTransfer?.files[0]);
});

// The visitor will open a file, and the networks take longer to load than to run; not where data are dear.
if (!(/** @type {any} */ (navigator).connection?.saveData)) SodecImage.prepare();

part("starting", HTMLParagraphElement).remove();
const source = new URLSearchParams(location.search).get("src");
if (source) openAddress(source);
