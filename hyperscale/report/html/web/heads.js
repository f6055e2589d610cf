// Which layers and heads keep their entries: a heat map for each method, layers from left to right.

// The least share that is told from nothing; the scale is logarithmic, as heads differ by more than tenfold.
const FAINTEST = 10; // thousandths
const strength = (share) => Math.max(0, Math.min(1, Math.log10(Math.max(share, 1) / FAINTEST) / 2));
const percent = (share) => `${fixed(share / 10, share < 100 ? 1 : 0)} %`;

function drawHeads(section) {
  const tasksHere = [...new Set(data.kept.map((map) => map.task))];
  if (!tasksHere.length) {
    section.hidden = true;
    document.querySelector('nav a[href="#heads"]').remove();
    return;
  }
  const maps = el("div", { class: "heats" });
  const draw = () => maps.replaceChildren(...data.kept.filter((map) => map.task === task.value).map(heatMap));
  const [taskField, task] = choice("Task", tasksHere.map((name) => [name, name]), { onchange: draw });
  section.append(
    el(
      "p",
      { class: "help" },
      "Entries that each KV head holds when a chain ends, in percent of a full cache's, mean over chains. ",
      "Layers go from left to right, heads from top to bottom. Point at a head, or focus a map and use the arrow keys.",
    ),
    el("div", { class: "filters" }, taskField, heatLegend()),
    maps,
  );
  keepSelect("heads-task", task);
  REDRAWS.push(draw);
  draw();
}

function heatMap({ name, chains, layers }) {
  const heads = layers[0].length;
  const all = layers.flat();
  const mean = all.reduce((sum, share) => sum + share, 0) / all.length;
  const cells = layers.flatMap((shares, layer) =>
    shares.map((share, head) =>
      svg("rect", { x: 10 * layer, y: 10 * head, width: 9.4, height: 9.4, "fill-opacity": 0.05 + 0.95 * strength(share) }),
    ),
  );
  const cursor = svg("rect", { class: "cursor", width: 9.4, height: 9.4, visibility: "hidden" });
  const picture = svg(
    "svg",
    { viewBox: `-1 -1 ${10 * layers.length + 1.4} ${10 * heads + 1.4}`, "aria-hidden": "true" },
    cells,
    cursor,
  );
  picture.style.maxWidth = `${22 * layers.length}px`;
  const ends = el("p", { class: "count ends" }, el("span", {}, "layer 0"), el("span", {}, `layer ${layers.length - 1}`));
  ends.style.maxWidth = `max(${22 * layers.length}px, 9rem)`;
  const told = el("output", { class: "count", "aria-live": "polite" }, `mean ${percent(mean)}`);
  let at = null; // layer and head
  const show = (layer, head) => {
    at = [layer, head];
    cursor.setAttribute("x", 10 * layer);
    cursor.setAttribute("y", 10 * head);
    cursor.setAttribute("visibility", "visible");
    told.textContent = `layer ${layer}, head ${head}: ${percent(layers[layer][head])}; mean of all ${percent(mean)}`;
  };
  const hide = () => {
    at = null;
    cursor.setAttribute("visibility", "hidden");
    told.textContent = `mean ${percent(mean)}`;
  };
  const within = (n, count) => Math.max(0, Math.min(count - 1, n));
  const stage = el(
    "div",
    {
      class: "heat",
      tabindex: 0,
      role: "group",
      "aria-label": `${name}: heat map of ${layers.length} layers and ${heads} heads, mean ${percent(mean)}`,
      onpointermove: (event) => {
        const box = picture.getBoundingClientRect();
        const part = (value, start, size, count) => within(Math.floor(((value - start) / size) * count), count);
        show(
          part(event.clientX, box.left, box.width, layers.length),
          part(event.clientY, box.top, box.height, heads),
        );
      },
      onpointerleave: hide,
      onblur: hide,
      onkeydown: (event) => {
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (!step) return;
        event.preventDefault();
        const [layer, head] = at ?? [-Math.abs(step[0]), -Math.abs(step[1])];
        show(within(layer + step[0], layers.length), within(head + step[1], heads));
      },
    },
    picture,
  );
  return el(
    "figure",
    { class: "heat-map" },
    el("figcaption", {}, el("strong", {}, name), `, ${plural(chains, "chain")}`),
    stage,
    ends,
    told,
    el("details", {}, el("summary", {}, "as a table"), heatTable(name, layers)),
  );
}

function heatTable(name, layers) {
  const title = (text) => el("th", { scope: "col", class: "number" }, text);
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `${name}, by layer and head` },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, title("layer"), layers[0].map((_, head) => title(`head ${head}`)))),
      el(
        "tbody",
        {},
        layers.map((shares, layer) =>
          el("tr", {}, el("th", { scope: "row", class: "number" }, String(layer)), shares.map((share) => el("td", { class: "number" }, percent(share)))),
        ),
      ),
    ),
  );
}

function heatLegend() {
  const steps = [10, 30, 100, 300, 1000];
  return el(
    "span",
    { class: "heat-legend", role: "img", "aria-label": "Scale: from 1 % or less, faint, to 100 %, full" },
    steps.map((share, i) =>
      el(
        "span",
        {},
        svg(
          "svg",
          { viewBox: "0 0 10 10" },
          svg("rect", { width: 10, height: 10, "fill-opacity": 0.05 + 0.95 * strength(share) }),
        ),
        ` ${i ? share / 10 : "≤ 1"} %`,
      ),
    ),
  );
}
