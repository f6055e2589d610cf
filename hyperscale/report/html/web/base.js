// Elements, numbers and packed data. Whatever a model or a file's author wrote enters the page as a text node.

const data = JSON.parse(document.getElementById("data").textContent);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "colour") node.style.color = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const byId = (id) => document.getElementById(id);

// --- numbers ------------------------------------------------------------------------------------------------------

const tidy = (n) => String(Number(n.toPrecision(3)));

// 512, 1K, 16K, 1M: binary prefixes where they are exact, as in W-L-CR
function short(n) {
  for (const [unit, prefix] of [
    [2 ** 30, "G"],
    [2 ** 20, "M"],
    [2 ** 10, "K"],
  ])
    if (n >= unit && n % unit === 0) return n / unit + prefix;
  return tidy(n);
}

// 950, 12.3K, 4.56M: decimal, as in tables
function amount(n) {
  if (n == null) return "–";
  for (const [unit, prefix] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "K"],
  ])
    if (n >= unit && (unit > 1e3 || n >= 1e4)) return tidy(n / unit) + prefix;
  return n >= 100 ? Math.round(n).toLocaleString("en") : tidy(n);
}

function bytes(n) {
  if (n == null) return "–";
  const power = Math.max(0, Math.min(4, Math.floor(Math.log2(n || 1) / 10)));
  return `${tidy(n / 2 ** (10 * power))} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

const inBytes = (axis) => axis.endsWith("_bytes");
const cost = (axis, n) =>
  inBytes(axis) ? bytes(n) : axis === "seconds" && n != null ? `${tidy(n)} s` : amount(n);
const tick = (axis, n) => (inBytes(axis) ? bytes(n) : short(n));
const fixed = (n, digits = 1) => (n == null ? "–" : n.toFixed(digits));
// An accuracy with its interval, which points of few problems have not.
const withInterval = (p) =>
  fixed(p.accuracy) + (p.accuracy_low == null ? "" : ` [${fixed(p.accuracy_low)}, ${fixed(p.accuracy_high)}]`);
const signed = (n) => (n == null ? "NA" : (n < 0 ? "−" : "+") + Math.abs(n).toFixed(1));
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

// --- what the data say --------------------------------------------------------------------------------------------

const points = data.points.map((row) => Object.fromEntries(data.columns.map((name, i) => [name, row[i]])));
for (const point of points) {
  point.label = `${point.W}-${short(point.L)}-${point.kv_budget ? `${point.kv_budget}t` : point.CR}`;
  point.on = new Set(); // axes on whose frontier it lies
}
for (const series of data.series)
  for (const [axis, frontier] of Object.entries(series.frontiers))
    for (const i of frontier ? frontier.kept : []) points[i].on.add(axis);
const tasks = data.panels.map((panel) => panel.task);
const names = Object.keys(data.styles);

// Plots draw vanilla in black; here black is the ink, which is light on a dark page.
const colour = (name) => (data.styles[name][0] === "#000000" ? "var(--ink)" : data.styles[name][0]);
const SHAPES = {
  o: "M-1,0a1,1 0 1,0 2,0a1,1 0 1,0 -2,0z",
  s: "M-.9,-.9h1.8v1.8h-1.8z",
  D: "M0,-1.2L1.2,0L0,1.2L-1.2,0z",
  "^": "M0,-1.1L1.1,.9H-1.1z",
  v: "M0,1.1L1.1,-.9H-1.1z",
  "<": "M-1.1,0L.9,-1.1V1.1z",
  ">": "M1.1,0L-.9,-1.1V1.1z",
  P: "M-.4,-1.1h.8v.7h.7v.8h-.7v.7h-.8v-.7h-.7v-.8h.7z",
  d: "M0,-1.4L.8,0L0,1.4L-.8,0z",
  p: "M0,-1.15L1.09,-.36L.68,.93L-.68,.93L-1.09,-.36z",
  h: "M0,-1.1L.95,-.55L.95,.55L0,1.1L-.95,.55L-.95,-.55z",
  "*": "M0,-1.4L.35,-.49L1.33,-.43L.57,.19L.82,1.13L0,.6L-.82,1.13L-.57,.19L-1.33,-.43L-.35,-.49z",
  X: "M-1,-.5L-.5,-1L0,-.5L.5,-1L1,-.5L.5,0L1,.5L.5,1L0,.5L-.5,1L-1,.5L-.5,0z",
};
const marker = (name, x, y, size, more = {}) =>
  svg("path", {
    d: SHAPES[data.styles[name][1]],
    transform: `translate(${x},${y}) scale(${size})`,
    fill: "currentColor",
    ...more,
  });
const swatch = (name) =>
  svg(
    "svg",
    { class: "swatch", viewBox: "-9 -6 18 12", "aria-hidden": "true", colour: colour(name) },
    svg("path", { d: "M-9,0H9", stroke: "currentColor", "stroke-width": 2 }),
    marker(name, 0, 0, 4),
  );

// The cost axis and the hidden methods hold for every section; whoever listens draws again.
const state = { axis: Object.keys(data.axes)[0], hidden: new Set(), listeners: [] };
const changed = () => state.listeners.forEach((listener) => listener());

function choice(label, options, more = {}) {
  const select = el(
    "select",
    { "aria-label": label, ...more },
    options.map(([value, text]) => el("option", { value }, text)),
  );
  return [el("label", { class: "field" }, el("span", {}, label), select), select];
}
function tickbox(label, more = {}) {
  const box = el("input", { type: "checkbox", ...more });
  return [el("label", { class: "box" }, box, " ", label), box];
}

// Blocks are base64 of zlib-compressed JSON.
async function unpack(block) {
  const packed = Uint8Array.from(atob(block), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}
