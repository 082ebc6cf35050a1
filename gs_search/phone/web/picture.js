// From a file to the bytes that a generator takes, and back onto a canvas. Nothing here leaves the browser.

// Opens a photo upright, whatever its EXIF orientation; the caller closes it.
export async function open(file) {
  const address = URL.createObjectURL(file);
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
  } catch {
    URL.revokeObjectURL(address);
    throw new Error(`${file.name || "this file"} is no picture that this browser can read`);
  }
  return { image, width: image.naturalWidth, height: image.naturalHeight, close: () => URL.revokeObjectURL(address) };
}

// Width and height for a generator: those it is fixed to, or `side` along the longer edge, in whole multiples.
export function sidesOf(photo, { side, fixed, square, multiple }) {
  if (fixed) return fixed;
  const round = (value) => Math.max(multiple, Math.round(value / multiple) * multiple);
  if (square) return { width: round(side), height: round(side) };
  const scale = side / Math.max(photo.width, photo.height);
  return { width: round(photo.width * scale), height: round(photo.height * scale) };
}

// Draws the middle of a photo, scaled to fill the canvas; a picture of just this size comes through byte for byte.
export function draw(photo, canvas, { width, height }) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  const scale = Math.min(photo.width / width, photo.height / height);
  const [cutWidth, cutHeight] = [width * scale, height * scale];
  context.fillStyle = "#fff"; // behind transparent pictures
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(photo.image, (photo.width - cutWidth) / 2, (photo.height - cutHeight) / 2, cutWidth, cutHeight, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

export function show(canvas, pixels, { width, height }) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d", { alpha: false }).putImageData(new ImageData(pixels, width, height), 0, 0);
}

export function save(canvas, name) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => {
      if (!blob) { reject(new Error("this browser cannot write the picture as PNG")); return; }
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some phones read it after a question
      resolve();
    }, "image/png");
  });
}
