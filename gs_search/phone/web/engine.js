// The worker that runs the files, so that the page stays quick: onnxruntime-web with WebAssembly or WebGPU.
const BUILDS = {
  wasm: { script: "ort.wasm.min.mjs", binary: "ort-wasm-simd-threaded" },
  webgpu: { script: "ort.webgpu.min.mjs", binary: "ort-wasm-simd-threaded.asyncify" },
};
// Bytes to [-1, 1] in the roundings of float32, as `bytes / 127.5 - 1` has them in Python.
const FLOATS = Float32Array.from({ length: 256 }, (_, byte) => Math.fround(Math.fround(byte / 127.5) - 1));
const sessions = new Map();
let ort = null;

async function open({ backend, threads, runtime, models }) {
  const build = BUILDS[backend];
  if (backend === "webgpu" && !(await navigator.gpu?.requestAdapter())) throw new Error("no graphics adapter");
  ort = await import(`${runtime}${build.script}`);
  Object.assign(ort.env.wasm, { numThreads: threads, wasmPaths: { mjs: `${runtime}${build.binary}.mjs`, wasm: `${runtime}${build.binary}.wasm` } });
  ort.env.logLevel = "error";
  const fixed = {};
  for (const [name, address] of Object.entries(models)) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error((await answer.text()).trim().slice(0, 300));
    const session = await ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer()), { executionProviders: [backend], logSeverityLevel: 3 });
    fixed[name] = fixedSides(session, name);
    sessions.set(name, session);
  }
  return { fixed };
}

// Null where a file takes pictures of any size.
function fixedSides(session, name) {
  const [input] = session.inputMetadata ?? [];
  const shape = input?.shape;
  if (session.inputNames.length !== 1 || input?.type !== "float32" || shape?.length !== 4 || (shape[1] !== 3 && typeof shape[1] === "number")) {
    throw new Error(`the ${name}'s file is no generator of pictures: it has to take N x 3 x height x width, float32`);
  }
  const [height, width] = shape.slice(2);
  return typeof height === "number" && typeof width === "number" && height > 0 && width > 0 ? { width, height } : null;
}

function planes(pixels, { width, height }) {
  const area = width * height;
  const values = new Float32Array(3 * area);
  for (let at = 0, byte = 0; at < area; at += 1, byte += 4) {
    values[at] = FLOATS[pixels[byte]];
    values[at + area] = FLOATS[pixels[byte + 1]];
    values[at + 2 * area] = FLOATS[pixels[byte + 2]];
  }
  return new ort.Tensor("float32", values, [1, 3, height, width]);
}

// [-1, 1] to bytes, clipped, rounded half up as gs-search does.
function bytes(values, area) {
  const pixels = new Uint8ClampedArray(4 * area).fill(255);
  for (let at = 0, byte = 0; at < area; at += 1, byte += 4) {
    for (let plane = 0; plane < 3; plane += 1) pixels[byte + plane] = Math.floor(values[at + plane * area] * 127.5 + 128);
  }
  return pixels;
}

// Runs a file on one picture; `painted` says whether the picture is wanted or only the milliseconds.
async function run({ name, pixels, sides, painted }) {
  const session = sessions.get(name);
  const input = planes(pixels, sides);
  const start = performance.now();
  const outputs = await session.run({ [session.inputNames[0]]: input });
  const ms = performance.now() - start;
  const output = outputs[session.outputNames[0]];
  const shape = output.dims;
  if (!painted) return { ms };
  if (shape.length !== 4 || shape[1] !== 3) throw new Error(`the ${name}'s file paints no picture: ${shape.join(" x ")}`);
  const [height, width] = shape.slice(2);
  return { ms, sides: { width, height }, pixels: bytes(output.data, width * height) };
}

const ACTS = { open, run };
let before = Promise.resolve();
self.addEventListener("message", ({ data: { id, act, ...given } }) => {
  before = before.then(async () => {
    try {
      const result = await ACTS[act](given);
      self.postMessage({ id, result }, result.pixels ? [result.pixels.buffer] : []);
    } catch (error) {
      self.postMessage({ id, error: String(error?.message ?? error) });
    }
  });
});
