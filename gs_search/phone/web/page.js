// What people see and do. The files run in a worker, engine.js; photos come and go through picture.js.
import { draw, open as openPhoto, save, show, sidesOf } from "./picture.js";

const LIMIT_MS = 3000; // of timing, after the first pictures
const MOST_RUNS = 15;
const NO_ADAPTER = "no graphics adapter"; // what the worker says
const SIDES = [64, 128, 256, 384, 512, 768, 1024];
const element = (id) => document.getElementById(id);
const controls = { size: element("size"), frame: element("frame"), backend: element("backend"), threads: element("threads") };
let study = null;
let engine = null;
let photo = null;
let turn = 0; // of the latest photo or setting: what an earlier one still computes is dropped

// --- lines

function tell(text) { element("status").textContent = text; }
function note(text) { element("note").textContent = text; element("note").hidden = !text; }
function complain(error) {
  const line = String(error?.message ?? error).split("\n", 1)[0].slice(0, 300);
  element("error").textContent = line;
  element("error").hidden = !line;
  if (line) tell("Nothing was computed.");
}

// --- the worker

class Engine {
  constructor() {
    this.worker = new Worker("/engine.js", { type: "module" });
    this.waiting = new Map();
    this.worker.addEventListener("message", ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) resolve(result); else reject(new Error(error));
    });
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "the worker that computes could not start"));
      this.waiting.clear();
    });
  }
  ask(act, given) {
    return new Promise((resolve, reject) => {
      const id = crypto.getRandomValues(new Uint32Array(1))[0];
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, act, ...given });
    });
  }
  close() {
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(new Error("stopped"));
    this.waiting.clear();
  }
}

// Why there is no WebGPU here; empty where there may be.
function withoutGraphics() {
  if (!window.isSecureContext) return "WebGPU and threads need https or localhost";
  return navigator.gpu ? "" : "This browser has no WebGPU";
}

async function start(backend, threads) {
  const started = new Engine();
  const models = Object.fromEntries(Object.entries(study.models).map(([name, model]) => [name, model.address]));
  try {
    const { fixed } = await started.ask("open", { backend, threads, runtime: study.runtime, models });
    started.fixed = fixed.student;
    if (fixed.teacher && JSON.stringify(fixed.teacher) !== JSON.stringify(fixed.student ?? fixed.teacher)) throw new Error("student and teacher take pictures of different sizes");
    started.fixed ??= fixed.teacher ?? null;
    const sides = sidesOf({ width: 1, height: 1 }, wanted(started));
    const blank = new Uint8ClampedArray(4 * sides.width * sides.height);
    for (const name of Object.keys(models)) {
      for (let time = 0; time < 2; time += 1) await started.ask("run", { name, pixels: blank, sides, painted: false });
    }
  } catch (error) {
    started.close();
    throw error;
  }
  return started;
}

// Starts what the settings say, WebAssembly where WebGPU fails, and says in one line what runs.
async function restart() {
  const mine = ++turn;
  engine?.close();
  engine = null;
  complain("");
  const threads = Number(controls.threads.value);
  const missing = withoutGraphics();
  let backend = missing ? "wasm" : controls.backend.value;
  tell("Loading and warming up…");
  const began = performance.now();
  let started = null;
  let why = missing;
  try {
    if (backend === "webgpu") {
      try {
        started = await start("webgpu", threads);
      } catch (error) {
        console.info(`WebGPU: ${error.message}`); // long, and for those who look there
        why = error.message === NO_ADAPTER ? "WebGPU finds no graphics here" : "WebGPU cannot run this file here";
        backend = "wasm";
      }
    }
    if (mine !== turn) { started?.close(); return; }
    started ??= await start("wasm", threads);
  } catch (error) {
    if (mine === turn) complain(error);
    return;
  }
  if (mine !== turn) { started.close(); return; }
  engine = started;
  controls.backend.value = backend;
  note(why ? `${why}: WebAssembly runs instead.` : "");
  fixControls();
  const how = backend === "webgpu" ? "WebGPU" : `WebAssembly, ${threads === 1 ? "1 thread" : `${threads} threads`}`;
  engine.how = how;
  tell(`${how}: ready after ${((performance.now() - began) / 1000).toFixed(1)} s.`);
  document.documentElement.dataset.state = "ready";
  if (photo) await paint();
}

function fixControls() {
  controls.size.disabled = controls.frame.disabled = Boolean(engine.fixed);
  if (engine.fixed) {
    const { width, height } = engine.fixed;
    controls.size.replaceChildren(new Option(`${width} × ${height}, fixed in the file`, width));
  }
}

// --- a photo

function wanted(of) {
  return { side: Number(controls.size.value), fixed: of.fixed, square: controls.frame.value === "square", multiple: study.multiple };
}

async function take(file) {
  if (!file) return;
  try {
    const opened = await openPhoto(file);
    photo?.close();
    photo = opened;
  } catch (error) {
    complain(error);
    return;
  }
  await paint();
}

async function paint() {
  if (!engine) return; // `restart` paints when it is ready
  const [mine, running] = [++turn, engine];
  complain("");
  document.documentElement.dataset.state = "busy";
  const names = Object.keys(study.models);
  const times = Object.fromEntries(names.map((name) => [name, []]));
  try {
    const sides = sidesOf(photo, wanted(running));
    tell(`Painting ${sides.width} × ${sides.height}…`);
    const pixels = draw(photo, element("input"), sides);
    for (const name of names) {
      const painted = await running.ask("run", { name, pixels, sides, painted: true });
      if (mine !== turn) return;
      show(element(name), painted.pixels, painted.sides);
      element("result").hidden = false;
      element(`figures-${name}`).querySelector(".ms").textContent = "…";
    }
    // In turn, so that what else the device does meets all alike; the first runs of a size have warmed it up.
    const began = performance.now();
    for (let round = 0; round < MOST_RUNS && (round === 0 || performance.now() - began < LIMIT_MS); round += 1) {
      tell(`${running.how}, ${sides.width} × ${sides.height}: timing, run ${round + 1} of ${MOST_RUNS}…`);
      for (const name of names) {
        times[name].push((await running.ask("run", { name, pixels, sides, painted: false })).ms);
        if (mine !== turn) return;
        element(`figures-${name}`).querySelector(".ms").textContent = milliseconds(median(times[name]));
      }
    }
    const runs = times.student.length;
    const factors = times.teacher?.map((ms, round) => ms / times.student[round]); // of runs that stood side by side
    const factor = factors ? `; the student is ${median(factors).toFixed(1)} times as fast as the teacher` : "";
    tell(`${running.how}, ${sides.width} × ${sides.height}: median of ${runs === 1 ? "1 run" : `${runs} runs`}${factor}.`);
    document.documentElement.dataset.state = "done";
  } catch (error) {
    if (mine === turn) complain(error);
  }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
const milliseconds = (ms) => (ms >= 100 ? ms.toFixed(0) : ms.toPrecision(3));

// --- the line

function slide() {
  const share = Number(element("share").value);
  const left = document.querySelector("input[name=left]:checked")?.value ?? "input";
  const name = left === "input" ? "photo" : "teacher";
  element("stage").style.setProperty("--share", `${share}%`);
  element("share").setAttribute("aria-valuetext", `${share} % ${name}, ${100 - share} % student`);
  element("left-name").textContent = name;
  element("input").hidden = left !== "input";
  element("teacher").hidden = left !== "teacher";
}

// --- the beginning

function fillControls() {
  const offered = [...new Set([study.image_px, ...SIDES])].filter((side) => side % study.multiple === 0).sort((a, b) => a - b);
  for (const side of offered) controls.size.add(new Option(`${side} px${side === study.image_px ? ", as in the study" : ""}`, side));
  controls.size.value = study.image_px;
  const cores = navigator.hardwareConcurrency ?? 1;
  const most = window.crossOriginIsolated ? Math.min(8, cores) : 1;
  for (let threads = 1; threads <= most; threads += 1) controls.threads.add(new Option(threads, threads));
  controls.threads.value = Math.min(4, Math.ceil(cores / 2), most); // the runtime's own rule
  controls.threads.disabled = most === 1;
  if (withoutGraphics()) {
    controls.backend.querySelector("[value=webgpu]").disabled = true;
    controls.backend.value = "wasm";
  }
}

async function begin() {
  study = await (await fetch("/study.json")).json();
  fillControls();
  for (const id of ["camera", "photo"]) {
    element(id).addEventListener("change", (event) => {
      take(event.target.files[0]);
      event.target.value = ""; // the same photo may be taken again
    });
  }
  for (const name of ["size", "frame"]) controls[name].addEventListener("change", () => { if (photo) paint(); });
  for (const name of ["backend", "threads"]) controls[name].addEventListener("change", restart);
  element("share").addEventListener("input", slide);
  document.querySelectorAll("input[name=left]").forEach((radio) => radio.addEventListener("change", slide));
  element("download").addEventListener("click", () => save(element("student"), `${study.study}_student.png`).catch(complain));
  slide();
  await restart();
}

begin().catch(complain);
