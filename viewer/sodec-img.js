/**
 * <sodec-img src="photo.sodec" alt="A lighthouse">: shows a .sodec picture, decoded on the visitor's machine.
 *
 * One file for other people's pages; it finds the decoder and the weights in the folder that it was loaded from.
 *
 *   src         address of the stream
 *   alt         what the picture shows, as for <img>; "" where it is decoration
 *   loading     "lazy" (default) decodes when the picture comes near the screen, "eager" at once
 *   controls    shows buttons: fidelity or full picture, save as PNG
 *   max-pixels  larger pictures are refused; 50 million unless stated
 *
 * Events: "sodec-header" when the file is read, "sodec-picture" when a picture is complete, "sodec-error". Their
 * `detail` is the worker's message; viewer/worker.js says what it holds.
 */

const BASE = new URL(".", import.meta.url);
const MAX_PIXELS = 50e6;
const MAX_BYTES = 100e6; // of a stream: 50 million pixels and their alpha take less
const NEAR = "300px"; // from the screen, where loading begins
const MODES = /** @type {const} */ (["fidelity", "full"]);

/** The page's one decoder: a worker, and who waits for it. */
const decoder = {
  count: 0,
  /** @type {Map<number, (message: any) => void>} */
  waiting: new Map(),
  /** @type {Worker | undefined} */
  worker: undefined,

  /**
   * @param {ArrayBuffer} bytes
   * @param {number} maxPixels
   * @param {(message: any) => void} receive
   */
  decode(bytes, maxPixels, receive) {
    this.worker ??= this.start();
    const id = ++this.count;
    this.waiting.set(id, receive);
    this.worker.postMessage({ id, bytes, maxPixels }, [bytes]);
    return id;
  },

  /** @param {number} id */
  stop(id) {
    if (this.waiting.delete(id)) this.worker?.postMessage({ id, stop: true });
  },

  /** Loads worker and networks ahead of the first picture. */
  prepare() {
    if (this.worker) return;
    this.worker = this.start();
    this.worker.postMessage({});
  },

  start() {
    // From a blob, so that the page's content security policy holds for the worker too, and so that the folder may be
    // on another server than the page.
    const script = `import ${JSON.stringify(new URL("worker.js", BASE).href)};`;
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    const worker = new Worker(address, { type: "module" });
    worker.addEventListener("message", ({ data }) => {
      // What is loaded serves all who wait.
      const receivers = data.type === "download" ? [...this.waiting.values()] : [this.waiting.get(data.id)];
      if (data.type === "error" || data.last) this.waiting.delete(data.id);
      for (const receive of receivers) receive?.(data);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.worker = undefined; // the next picture tries again
      const message = `the decoder can't be loaded from ${BASE.href}`;
      for (const [id, receive] of this.waiting) receive({ id, type: "error", kind: "SodecError", message });
      this.waiting.clear();
    });
    return worker;
  },
};

const style = new CSSStyleSheet();
style.replaceSync(`
  :host { display: inline-block; position: relative; max-width: 100%; line-height: 0; }
  :host([hidden]) { display: none; }
  canvas { display: block; max-width: 100%; height: auto; image-orientation: none; }
  canvas[hidden], .empty[hidden] { display: none; }
  .empty { display: block; min-width: 6rem; min-height: 4rem; background: rgb(128 128 128 / 15%); }
  .problem, .wait { font: 0.9rem/1.4 system-ui, sans-serif; padding: 0.6em 0.8em; margin: 0; overflow-wrap: anywhere; }
  .problem { border-left: 0.25em solid #c0392b; background: rgb(192 57 43 / 10%); }
  .problem:empty, .wait:empty { display: none; }
  progress { width: min(20rem, 100%); }
  progress[hidden], button[hidden] { display: none; }
  .controls { display: flex; flex-wrap: wrap; gap: 0.4rem; padding: 0.4rem 0; }
  .controls[hidden] { display: none; }
  button { font: 0.9rem/1.3 system-ui, sans-serif; padding: 0.4em 0.8em; cursor: pointer; }
  button:focus-visible { outline: 0.2em solid #1a73e8; outline-offset: 0.1em; }
`);

/** The last part of an address. @param {URL} url */
export function fileName(url) {
  const name = url.pathname.split("/").pop() || url.href;
  try {
    return decodeURIComponent(name);
  } catch {
    return name; // of bytes that are no UTF-8
  }
}

/** @param {number} size in bytes, 0 where it is unknown @param {Blob | Response} source */
function readWithin(size, source) {
  if (size <= MAX_BYTES) return source.arrayBuffer();
  throw new Error(`the file has ${Math.round(size / 1e6)} MB; at most ${MAX_BYTES / 1e6} are taken`);
}

/** @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {object} properties @returns {HTMLElementTagNameMap[T]} */
const element = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

export class SodecImage extends HTMLElement {
  static observedAttributes = ["src", "alt", "controls"];

  #root = this.attachShadow({ mode: "open" });
  #canvases = { fidelity: element("canvas", { hidden: true }), full: element("canvas", { hidden: true }) };
  #empty = element("span", { className: "empty" });
  #wait = element("p", { className: "wait" });
  #progress = element("progress", { hidden: true, ariaLabel: "Decoding" });
  #problem = element("p", { className: "problem" });
  #controls = element("div", { className: "controls", hidden: true });
  #toggle = element("button", { type: "button", disabled: true });
  #save = element("button", { type: "button", disabled: true, textContent: "Save PNG" });
  #observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.#load(), { rootMargin: NEAR });
  #job = 0; // of the decoder
  #turn = 0; // counts what was asked for, so that a late answer to an earlier one is dropped
  #downloaded = 0;
  /** @type {"fidelity" | "full" | ""} */
  #shown = "";
  /** @type {Blob | null} */
  #file = null;
  #name = "picture";

  constructor() {
    super();
    this.#root.adoptedStyleSheets = [style];
    this.#problem.setAttribute("role", "alert");
    this.#wait.setAttribute("role", "status");
    this.#toggle.addEventListener("click", () => this.#show(this.#shown === "full" ? "fidelity" : "full"));
    this.#save.addEventListener("click", () => this.save());
    this.#controls.append(this.#toggle, this.#save);
    this.#root.append(this.#empty, this.#canvases.fidelity, this.#canvases.full, this.#problem, this.#wait, this.#progress, this.#controls);
  }

  connectedCallback() {
    this.#describe();
    this.#restart();
  }

  disconnectedCallback() {
    this.#observer.disconnect();
    decoder.stop(this.#job);
  }

  /** @param {string} name */
  attributeChangedCallback(name) {
    if (name === "src") {
      this.#file = null;
      if (this.isConnected) this.#restart();
    } else {
      this.#describe();
    }
  }

  get src() {
    return this.getAttribute("src") ?? "";
  }

  set src(value) {
    this.setAttribute("src", value);
  }

  get alt() {
    return this.getAttribute("alt") ?? "";
  }

  set alt(value) {
    this.setAttribute("alt", value);
  }

  /** Shows a file that the visitor chose, instead of `src`. @param {File} file */
  open(file) {
    this.#file = file;
    this.#name = file.name;
    this.#restart();
    this.#load();
  }

  /** Loads the decoder before it is known which picture is wanted. */
  static prepare() {
    decoder.prepare();
  }

  /** Saves the picture that is shown as a PNG. */
  async save() {
    if (!this.#shown) return;
    const canvas = this.#canvases[this.#shown];
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    if (!blob) return this.#fail({ message: "the browser can't make a PNG of so many pixels" });
    const link = element("a", { href: URL.createObjectURL(blob), download: `${this.#name.replace(/\.sodec$/i, "")}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  /** Drops what was shown, and waits for the picture to come near the screen. */
  #restart() {
    decoder.stop(this.#job);
    this.#turn++;
    this.#shown = "";
    this.#downloaded = 0;
    this.#problem.textContent = this.#wait.textContent = "";
    this.#empty.hidden = false;
    this.#progress.hidden = true;
    this.#toggle.disabled = this.#save.disabled = true;
    for (const mode of MODES) Object.assign(this.#canvases[mode], { hidden: true, width: 0, height: 0 });
    this.#describe();
    this.#observer.disconnect();
    if (!this.src || this.#file) return;
    if (this.getAttribute("loading") === "eager") this.#load();
    else this.#observer.observe(this);
  }

  async #load() {
    this.#observer.disconnect();
    const turn = this.#turn;
    decoder.prepare(); // while the picture is fetched
    this.#wait.textContent = "Loading the picture …";
    try {
      const bytes = await (this.#file ? readWithin(this.#file.size, this.#file) : this.#fetch());
      if (turn !== this.#turn) return;
      const maxPixels = Number(this.getAttribute("max-pixels") ?? MAX_PIXELS);
      this.#job = decoder.decode(bytes, maxPixels, (message) => turn === this.#turn && this.#receive(message));
    } catch (error) {
      if (turn === this.#turn) this.#fail({ message: error instanceof Error ? error.message : String(error) });
    }
  }

  async #fetch() {
    if (!URL.canParse(this.src, document.baseURI)) throw new Error(`${this.src} is not an address`);
    const url = new URL(this.src, document.baseURI);
    this.#name = fileName(url);
    let response;
    try {
      response = await fetch(url, { credentials: "omit" });
    } catch {
      throw new Error(`the file ${url.href} can't be fetched: there is no connection, or the page may not reach that server`);
    }
    if (!response.ok) throw new Error(`the file ${url.href} can't be fetched: the server answers ${response.status}`);
    return readWithin(Number(response.headers.get("Content-Length")), response);
  }

  /** @param {any} message of the worker */
  #receive(message) {
    const { type, mode } = message;
    if (type === "header") {
      Object.assign(this.#canvases.fidelity, { width: message.width, height: message.height });
      this.#empty.hidden = true;
      this.#canvases.fidelity.hidden = false;
      this.#wait.textContent = "Decoding …";
      this.#announce("sodec-header", message);
    } else if (type === "download") {
      this.#downloaded += message.bytes;
      this.#wait.textContent = `Loading the decoder, once: ${(this.#downloaded / 1e6).toFixed(1)} MB …`;
    } else if (type === "band") {
      const { width, height } = this.#canvases.fidelity;
      const canvas = this.#canvases[/** @type {"fidelity" | "full"} */ (mode)];
      if (canvas.width !== width) Object.assign(canvas, { width, height }); // not before, for the memory's sake
      const context = canvas.getContext("2d");
      context?.putImageData(new ImageData(message.pixels, width, message.height), 0, message.top);
      // Canvases beyond a browser's limit stay empty, without an error.
      const drawn = context?.getImageData(0, message.top, 1, 1).data[3];
      if (drawn !== message.pixels[3]) this.#fail({ message: `this browser can't show ${width}x${height} pixels` });
    } else if (type === "progress") {
      this.#progress.hidden = message.share === 1;
      this.#progress.value = message.share;
    } else if (type === "picture") {
      this.#show(mode);
      this.#toggle.disabled = mode !== "full";
      this.#save.disabled = false;
      this.#wait.textContent = message.last ? "" : "This is the fidelity picture; the full one follows …";
      this.#announce("sodec-picture", message);
    } else if (type === "error") {
      this.#fail(message);
    }
  }

  /** @param {"fidelity" | "full"} mode */
  #show(mode) {
    this.#shown = mode;
    for (const one of MODES) this.#canvases[one].hidden = one !== mode;
    this.#describe();
  }

  /** @param {{message: string, kind?: string}} detail */
  #fail(detail) {
    this.#wait.textContent = "";
    this.#empty.hidden = this.#progress.hidden = true;
    if (!this.#shown) for (const mode of MODES) this.#canvases[mode].hidden = true;
    const { message } = detail;
    this.#problem.textContent = `${message[0].toUpperCase()}${message.slice(1)}.`;
    this.#announce("sodec-error", { ...detail, message: this.#problem.textContent });
  }

  /** Labels for assistive technology, and the text of the buttons. */
  #describe() {
    for (const mode of MODES) {
      const canvas = this.#canvases[mode];
      if (this.hasAttribute("alt") && !this.alt) {
        canvas.setAttribute("role", "presentation");
        canvas.removeAttribute("aria-label");
      } else {
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", this.alt || this.#name);
      }
    }
    this.#controls.hidden = !this.hasAttribute("controls") || !this.#shown;
    this.#toggle.hidden = !this.#canvases.full.width;
    this.#toggle.textContent = this.#shown === "full" ? "Show the fidelity picture" : "Show the full picture";
  }

  /** @param {string} name @param {object} detail */
  #announce(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true }));
  }
}

if (!customElements.get("sodec-img")) customElements.define("sodec-img", SodecImage);
