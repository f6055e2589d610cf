// Accuracy against the share of the prompt that a method keeps: a panel for each context task and length of prompts.

function drawRetained(section) {
  if (!data.shares.length) {
    section.hidden = true;
    document.querySelector('nav a[href="#retained"]').remove();
    return;
  }
  // All panels have the same shares below them: halves of 100 %, down to the smallest.
  const least = Math.min(...data.shares.flatMap(({ lines }) => lines.flatMap((line) => line.points.map(logShare))));
  const panels = data.shares.map((panel) => new SharePanel(panel, least));
  section.append(
    el(
      "p",
      { class: "help" },
      "Each line is a method, from its strongest compression to its weakest: the share of the prompt's entries that is ",
      "left after prefill, and the accuracy with it. Dashed: the full cache. Bars are 95 % intervals (Wilson).",
    ),
    el(
      "p",
      { class: "key" },
      names
        .filter((name) => data.shares.some(({ lines }) => lines.some((line) => line.name === name)))
        .map((name) => el("span", {}, swatch(name), ` ${name}`)),
    ),
    el("p", { class: "axis-title" }, "Accuracy (%) against the retained share of the prompt (%), log2 scale"),
    el(
      "div",
      { class: "panels" },
      panels.map((panel) => panel.figure),
    ),
  );
  const draw = () => panels.forEach((panel) => panel.draw());
  keepDrawn(section, draw);
}

const FULL = Math.log2(100);
const logShare = (i) => Math.log2(Math.max(points[i].retained, 1e-3));

class SharePanel extends Panel {
  constructor({ task, context, problems, vote, lines }, least) {
    super({ task: `${task}, ${context.toLocaleString("en")} tokens`, problems, vote, unlike: "" });
    this.lines = lines;
    this.least = least;
  }

  draw() {
    this.hide();
    this.series = this.lines.filter(({ name }) => !state.hidden.has(name));
    this.span(FULL - Math.max(1, Math.ceil(FULL - this.least - 1e-6)) - 0.25, FULL + 0.25);
    this.spots = this.series
      .flatMap(({ name, points: places }) =>
        places.map((i) => ({ point: points[i], name, x: this.x(logShare(i)), y: this.y(points[i].accuracy) })),
      )
      .sort((a, b) => a.x - b.x);
    this.fill("the retained share of the prompt");
  }

  grid() {
    const halves = Math.floor(FULL - this.low);
    const step = Math.ceil(halves / 5);
    const marks = Array.from({ length: Math.floor(halves / step) + 1 }, (_, n) => n * step);
    return [
      ...this.heights(),
      ...marks.map((halvings) => {
        const x = this.x(FULL - halvings);
        return svg(
          "g",
          {},
          svg("path", { class: "grid", d: `M${x},${ROOM.top}V${this.height - ROOM.bottom}` }),
          svg("text", { x, y: this.height - 8, "text-anchor": "middle" }, tidy(100 / 2 ** halvings)),
        );
      }),
    ];
  }

  line({ name, full, points: places }) {
    const way = places.map((i) => [this.x(logShare(i)), this.y(points[i].accuracy)]);
    const bars = places.filter((i) => points[i].accuracy_low != null);
    return svg(
      "g",
      { colour: colour(name) },
      full && svg("path", { class: "line full", d: `M${ROOM.left},${way[0][1]}H${this.width - ROOM.right}` }),
      svg("path", { class: "line", d: `M${way.join("L")}` }),
      bars.map((i) =>
        svg("path", {
          class: "bar",
          d: `M${this.x(logShare(i))},${this.y(points[i].accuracy_low)}V${this.y(points[i].accuracy_high)}`,
        }),
      ),
    );
  }

  mark({ name, x, y }) {
    return svg("g", { colour: colour(name) }, marker(name, x, y, 4.2, { class: "kept" }));
  }

  labels() {
    return [];
  }

  readings(log) {
    return [el("div", {}, `At ${tidy(Math.min(100, 2 ** log))} % of the prompt's entries`)];
  }
}
