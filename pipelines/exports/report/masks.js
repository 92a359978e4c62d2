// Masks: COCO's compressed run lengths, and how they are drawn on a canvas above a picture.
"use strict";

report.masks = (() => {
  const EDGE = 255, INSIDE = 105; // alpha of the pixels at the edge of a mask, and inside

  // "…" → lengths of the runs of pixels outside, inside, outside, … down the columns, from the left.
  function runs(counts) {
    const lengths = [];
    for (let at = 0; at < counts.length;) {
      let value = 0, shift = 0, code;
      do {
        code = counts.charCodeAt(at++) - 48;
        value |= (code & 31) << shift;
        shift += 5;
      } while (code & 32);
      if (code & 16 && shift < 32) value |= -1 << shift;
      if (lengths.length > 2) value += lengths[lengths.length - 2];
      lengths.push(value);
    }
    return lengths;
  }

  // Returns a byte a pixel, row by row, of a mask that is drawn width x height pixels large.
  function pixels({ size: [rows, columns], counts }, width, height) {
    const grid = new Uint8Array(width * height), places = new Int32Array(columns).fill(-1), lines = new Int32Array(rows).fill(-1);
    for (let x = 0; x < width; x++) places[Math.floor(((x + 0.5) * columns) / width)] = x;
    for (let y = 0; y < height; y++) lines[Math.floor(((y + 0.5) * rows) / height)] = y;
    let position = 0, filled = false;
    for (const length of runs(counts)) {
      for (let at = position; filled && at < position + length;) {
        const column = Math.floor(at / rows), end = Math.min(position + length, (column + 1) * rows), x = places[column];
        if (x >= 0) for (let row = at - column * rows; row < end - column * rows; row++) if (lines[row] >= 0) grid[lines[row] * width + x] = 1;
        at = end;
      }
      position += length;
      filled = !filled;
    }
    return grid;
  }

  // "rgb(1 2 3)" → the same with an alpha, as a pixel of a canvas: a whole number, least byte first.
  function pixel(colour, alpha) {
    const [red, green, blue] = colour.match(/\d+/g).map(Number);
    return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }

  // Draws masks, given as { rle, colour }, over the whole canvas; later ones cover earlier ones.
  function draw(canvas, shown) {
    const { width, height } = canvas, context = canvas.getContext("2d"), image = context.createImageData(width, height);
    const drawn = new Uint32Array(image.data.buffer);
    for (const { rle, colour } of shown) {
      const grid = pixels(rle, width, height), edge = pixel(colour, EDGE), inside = pixel(colour, INSIDE);
      for (let y = 0, at = 0; y < height; y++) {
        const middle = y > 1 && y < height - 2;
        for (let x = 0; x < width; x++, at++) {
          if (!grid[at]) continue;
          const inner = middle && x > 1 && x < width - 2 && grid[at - 2] && grid[at + 2] && grid[at - 2 * width] && grid[at + 2 * width];
          drawn[at] = inner ? inside : edge;
        }
      }
    }
    context.putImageData(image, 0, 0);
  }

  return { draw, pixels, runs };
})();
