"use strict";
/* Pictures, clips and scans of report.html. A scan is numbers: windowed, sliced and read out here.

   about of a scan: shape [slices, rows, columns], low and step (value = low + step * level), unit, window [low, high],
   presets {name: [low, high]}, spacing in millimetres along the axes, letters {left, right}, oriented. */

function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && key !== "list" && typeof value !== "string") element[key] = value;
    else element.setAttribute(key === "className" ? "class" : key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let place = 0; place < raw.length; place++) bytes[place] = raw.charCodeAt(place);
  return bytes;
}

async function unzipped(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/* Differences from the left neighbour, zigzag, low bytes before high bytes -> levels from 0 to 4095. */
function levelsOf(planes, columns) {
  const count = planes.length / 2;
  const levels = new Uint16Array(count);
  let before = 0;
  for (let place = 0; place < count; place++) {
    if (place % columns === 0) before = 0;
    const zigzag = planes[place] | (planes[count + place] << 8);
    before += (zigzag >>> 1) ^ -(zigzag & 1);
    levels[place] = before;
  }
  return levels;
}

/* A name and no address: the page refers to nothing outside of itself, and a search for addresses finds none. */
const SVG = "http:" + "//www.w3.org/2000/svg";

function overlay() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "boxes");
  return svg;
}

function drawBoxes(svg, rectangles) {
  svg.replaceChildren(
    ...rectangles.map(({ x, y, width, height, name }) => {
      const rectangle = document.createElementNS(SVG, "rect");
      for (const [key, value] of Object.entries({ x, y, width, height })) rectangle.setAttribute(key, value);
      rectangle.setAttribute("class", name);
      rectangle.setAttribute("vector-effect", "non-scaling-stroke");
      return rectangle;
    }),
  );
}

const boxName = (box) => (box.what === "reference" ? "box-reference" : `box-answer run-${box.run}`);

const flat = (box) => ({
  x: box.low[0],
  y: box.low[1],
  width: box.high[0] - box.low[0],
  height: box.high[1] - box.low[1],
  name: boxName(box),
});

function letters(told) {
  return Object.entries(told).map(([edge, letter]) =>
    make("span", { className: `letter ${edge}`, "aria-hidden": "true" }, letter),
  );
}

function sidesSaid(told) {
  return told.left ? ` The patient’s ${told.left === "R" ? "right" : "left"} is on the left of the picture.` : "";
}

function boxLegend(boxes, runs) {
  const names = new Map(boxes.map((box) => [boxName(box), box]));
  return [...names].map(([name, box]) =>
    make(
      "span",
      { className: "key" },
      make("span", { className: `swatch ${name}` }),
      box.what === "reference" ? "reference box" : runs.length > 1 ? `box of ${"AB"[box.run]}` : "box of the answer",
    ),
  );
}

function largerButton(figure) {
  const button = make("button", { type: "button", className: "plain", "aria-pressed": "false" }, "Larger");
  button.addEventListener("click", () => {
    const large = figure.classList.toggle("large");
    button.setAttribute("aria-pressed", String(large));
    button.textContent = large ? "Smaller" : "Larger";
  });
  return button;
}

function stageOf(about, ratio, ...children) {
  const stage = make("div", { className: "stage" }, ...children);
  stage.style.aspectRatio = String(ratio);
  stage.style.setProperty("--ratio", String(ratio));
  return stage;
}

function pictureViewer(about, text, boxes, title, runs) {
  const image = make("img", { alt: `${title}.${sidesSaid(about.letters)}`, src: `data:image/jpeg;base64,${text}` });
  const svg = overlay();
  drawBoxes(svg, boxes.map(flat));
  const figure = make("figure", { className: "viewer" }, stageOf(about, about.width / about.height, image, svg, ...letters(about.letters)));
  figure.append(
    make("div", { className: "controls" }, largerButton(figure), ...boxLegend(boxes, runs)),
    make("figcaption", {}, about.said),
  );
  return figure;
}

function onKeysAndWheel(stage, move) {
  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 };
  stage.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    event.stopPropagation();
    move(steps[event.key]);
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey || event.deltaY === 0) return;
      event.preventDefault();
      move(event.deltaY < 0 ? 1 : -1);
    },
    { passive: false },
  );
}

function clipViewer(about, text, boxes, title, runs) {
  const frames = text.split(" ");
  const image = make("img", { alt: "" });
  const svg = overlay();
  drawBoxes(svg, boxes.map(flat));
  const stage = stageOf(about, about.width / about.height, image, svg);
  stage.tabIndex = 0;
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", `${title}: frames in time, arrow keys or wheel step through them`);
  const said = make("output", {});
  const slider = make("input", { type: "range", min: "0", max: String(frames.length - 1), "aria-label": "Frame" });
  let place = 0;
  let timer = 0;
  const show = (next) => {
    place = (next + frames.length) % frames.length;
    image.src = `data:image/jpeg;base64,${frames[place]}`;
    image.alt = `${title}, frame ${place + 1} of ${frames.length} at ${about.times[place].toFixed(2)} s`;
    slider.value = String(place);
    said.textContent = `frame ${place + 1} / ${frames.length} · ${about.times[place].toFixed(2)} s`;
  };
  slider.addEventListener("input", () => show(Number(slider.value)));
  onKeysAndWheel(stage, (step) => show(Math.min(frames.length - 1, Math.max(0, place + step))));
  const play = make("button", { type: "button", className: "plain" }, "Play");
  const span = about.times[about.times.length - 1] - about.times[0];
  play.addEventListener("click", () => {
    if (timer) {
      clearInterval(timer);
      timer = 0;
    } else {
      const every = frames.length > 1 ? Math.min(500, Math.max(40, (1000 * span) / (frames.length - 1))) : 500;
      timer = setInterval(() => (figure.isConnected ? show(place + 1) : clearInterval(timer)), every);
    }
    play.textContent = timer ? "Stop" : "Play";
  });
  const figure = make("figure", { className: "viewer" }, stage);
  figure.append(
    make("div", { className: "controls" }, play, slider, said),
    make("div", { className: "controls" }, largerButton(figure), ...boxLegend(boxes, runs)),
    make("figcaption", {}, about.said),
  );
  show(0);
  return figure;
}

/* How each plane is cut out of the numbers: where a pixel lies, what surrounds it, and which boxes pass through it.
   Slices are stored from the feet up, so in the upright planes the last of them is the top row. */
function planesOf(about) {
  const [slices, rows, columns] = about.shape;
  const [deep, tall, wide] = about.spacing;
  const size = rows * columns;
  const up = about.oriented ? { top: "S", bottom: "I" } : {};
  const planes = {
    Axial: {
      count: slices, rows, columns, ratio: (columns * wide) / (rows * tall),
      at: (k, r, c) => k * size + r * columns + c,
      letters: { ...about.letters, ...(about.oriented ? { top: "A", bottom: "P" } : {}) },
      box: (b, k) => (b.low.length < 3 || inside(b, 2, k, slices) ? [b.low[0], b.low[1], b.high[0], b.high[1]] : null),
    },
  };
  if (slices > 3 && rows > 3 && columns > 3) {
    planes[about.oriented ? "Coronal" : "Rows"] = {
      count: rows, rows: slices, columns, ratio: (columns * wide) / (slices * deep),
      at: (k, r, c) => (slices - 1 - r) * size + k * columns + c,
      letters: { ...about.letters, ...up },
      box: (b, k) => (inside(b, 1, k, rows) ? [b.low[0], 1 - b.high[2], b.high[0], 1 - b.low[2]] : null),
    };
    planes[about.oriented ? "Sagittal" : "Columns"] = {
      count: columns, rows: slices, columns: rows, ratio: (rows * tall) / (slices * deep),
      at: (k, r, c) => (slices - 1 - r) * size + c * columns + k,
      letters: about.oriented ? { left: "A", right: "P", ...up } : {},
      box: (b, k) => (inside(b, 0, k, columns) ? [b.low[1], 1 - b.high[2], b.high[1], 1 - b.low[2]] : null),
    };
  }
  return planes;
}

const inside = (box, axis, k, count) => box.low[axis] < (k + 1) / count && box.high[axis] > k / count;

function scanViewer(about, text, boxes, title, runs) {
  const planes = planesOf(about);
  const names = Object.keys(planes);
  const state = { plane: names[0], slice: 0, window: [...about.window], levels: null };
  const canvas = make("canvas", {});
  const svg = overlay();
  const marks = make("div", { className: "letters" });
  const waiting = make("p", { className: "waiting" }, "unpacking …");
  const stage = stageOf(about, planes[state.plane].ratio, canvas, svg, marks, waiting);
  stage.tabIndex = 0;
  stage.setAttribute("role", "img");
  const slider = make("input", { type: "range", min: "0", "aria-label": "Slice" });
  const said = make("output", {});
  const value = make("output", { className: "readout" });
  const level = make("input", { type: "number", step: "any", "aria-label": "Window level" });
  const width = make("input", { type: "number", step: "any", min: "0", "aria-label": "Window width" });
  const unit = about.unit === "arbitrary" || about.unit === "display" ? "" : ` ${about.unit}`;
  const digits = about.step >= 0.5 ? 0 : 3;

  const middle = () => {
    const reference = boxes.find((box) => box.low.length === 3);
    const axis = { 0: 2, 1: 1, 2: 0 }[names.indexOf(state.plane)];
    const centre = reference ? (reference.low[axis] + reference.high[axis]) / 2 : 0.5;
    return Math.min(planes[state.plane].count - 1, Math.floor(centre * planes[state.plane].count));
  };

  function draw() {
    if (!state.levels) return;
    const plane = planes[state.plane];
    const [low, high] = state.window;
    const grey = new Uint8ClampedArray(4096);
    for (let at = 0; at < 4096; at++) {
      grey[at] = (255 * (about.low + about.step * at - low)) / Math.max(high - low, 1e-9);
    }
    canvas.width = plane.columns;
    canvas.height = plane.rows;
    const context = canvas.getContext("2d", { willReadFrequently: true }); // pixels are made here, not on a GPU
    const picture = context.createImageData(plane.columns, plane.rows);
    const pixels = new Uint32Array(picture.data.buffer);
    for (let row = 0, place = 0; row < plane.rows; row++) {
      for (let column = 0; column < plane.columns; column++, place++) {
        const shade = grey[state.levels[plane.at(state.slice, row, column)]];
        pixels[place] = 0xff000000 | (shade << 16) | (shade << 8) | shade;
      }
    }
    context.putImageData(picture, 0, 0);
    stage.style.aspectRatio = String(plane.ratio);
    stage.style.setProperty("--ratio", String(plane.ratio));
    marks.replaceChildren(...letters(plane.letters));
    drawBoxes(
      svg,
      boxes.flatMap((box) => {
        const at = plane.box(box, state.slice);
        return at ? [{ x: at[0], y: at[1], width: at[2] - at[0], height: at[3] - at[1], name: boxName(box) }] : [];
      }),
    );
    slider.max = String(plane.count - 1);
    slider.value = String(state.slice);
    said.textContent = `${state.slice + 1} / ${plane.count}`;
    if (document.activeElement !== level) level.value = String(Number(((low + high) / 2).toFixed(digits)));
    if (document.activeElement !== width) width.value = String(Number((high - low).toFixed(digits)));
    for (const button of figure.querySelectorAll("[data-preset]")) {
      const preset = about.presets[button.dataset.preset] || about.window;
      button.setAttribute("aria-pressed", String(preset[0] === low && preset[1] === high));
    }
    for (const button of figure.querySelectorAll("[data-plane]")) {
      button.setAttribute("aria-pressed", String(button.dataset.plane === state.plane));
    }
    const keys = plane.count > 1 ? " Arrow keys or wheel change the slice." : "";
    stage.setAttribute(
      "aria-label",
      `${title}: ${state.plane.toLowerCase()} slice ${state.slice + 1} of ${plane.count}, window level ` +
        `${((low + high) / 2).toFixed(digits)} width ${(high - low).toFixed(digits)}${unit}.${sidesSaid(plane.letters)}${keys}`,
    );
  }

  const move = (step) => {
    state.slice = Math.min(planes[state.plane].count - 1, Math.max(0, state.slice + step));
    draw();
  };
  const setWindow = (low, high) => {
    state.window = [low, high];
    draw();
  };
  onKeysAndWheel(stage, move);
  slider.addEventListener("input", () => move(Number(slider.value) - state.slice));
  const typed = () => {
    const centre = Number(level.value);
    const span = Number(width.value);
    if (level.value !== "" && width.value !== "" && span > 0) setWindow(centre - span / 2, centre + span / 2);
  };
  level.addEventListener("input", typed);
  width.addEventListener("input", typed);

  // As on a workstation: drag up and down for the level, sideways for the width.
  let from = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    from = { x: event.clientX, y: event.clientY, window: [...state.window] };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointerup", () => (from = null));
  stage.addEventListener("pointermove", (event) => {
    if (!state.levels) return;
    const plane = planes[state.plane];
    const frame = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - frame.left) / frame.width) * plane.columns);
    const row = Math.floor(((event.clientY - frame.top) / frame.height) * plane.rows);
    if (row >= 0 && column >= 0 && row < plane.rows && column < plane.columns) {
      const here = about.low + about.step * state.levels[plane.at(state.slice, row, column)];
      value.textContent = `${here.toFixed(digits)}${unit}`;
    }
    if (from) {
      const scale = (from.window[1] - from.window[0]) / 300;
      const centre = (from.window[0] + from.window[1]) / 2 + (event.clientY - from.y) * scale;
      const span = Math.max(about.step, from.window[1] - from.window[0] + 2 * (event.clientX - from.x) * scale);
      setWindow(centre - span / 2, centre + span / 2);
    }
  });
  stage.addEventListener("pointerleave", () => (value.textContent = ""));

  const preset = (name, [low, high]) =>
    make("button", { type: "button", className: "plain", "data-preset": name, onclick: () => setWindow(low, high) }, name);
  const figure = make("figure", { className: "viewer" }, stage);
  const own = Object.values(about.presets).every((pair) => pair[0] !== about.window[0] || pair[1] !== about.window[1]);
  figure.append(
    ...(about.shape[0] > 1 ? [make("div", { className: "controls" }, slider, said)] : []),
    make(
      "div",
      { className: "controls" },
      ...(names.length > 1
        ? names.map((name) =>
            make(
              "button",
              {
                type: "button", className: "plain", "data-plane": name,
                onclick: () => {
                  state.plane = name;
                  state.slice = middle();
                  draw();
                },
              },
              name,
            ),
          )
        : []),
      largerButton(figure),
      value,
    ),
    make(
      "div",
      { className: "controls", role: "group", "aria-label": "Window" },
      ...(own ? [preset("Own", about.window)] : []),
      ...Object.entries(about.presets).map(([name, pair]) => preset(name, pair)),
      make("label", {}, "level", level),
      make("label", {}, "width", width),
    ),
    make("div", { className: "controls" }, ...boxLegend(boxes, runs)),
    make(
      "figcaption",
      {},
      `${about.said}${about.oriented === false ? "; orientation unknown" : ""}` +
        `${about.millimetres === false ? "; spacing unknown, proportions may be wrong" : ""}`,
    ),
  );
  const unpacked = (numbers) => {
    state.levels = levelsOf(numbers, about.shape[2]);
    waiting.remove();
    state.slice = middle();
    draw();
    figure.dataset.drawn = "yes";
  };
  unzipped(text).then(unpacked, (error) => (waiting.textContent = `This scan cannot be unpacked: ${error.message}`));
  return figure;
}

function viewerOf(number, about, boxes, title, runs) {
  const text = document.getElementById(`medium-${number}`).textContent;
  const kinds = { picture: pictureViewer, clip: clipViewer, scan: scanViewer };
  return kinds[about.type](about, text, boxes, title, runs);
}
