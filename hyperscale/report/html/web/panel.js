// One task's panel: its picture, and the tip that follows a pointer or the arrow keys.

// Draw a section's panels whenever what is shown changes, and the section's width.
function keepDrawn(section, draw) {
  state.listeners.push(draw);
  let width = 0; // only a change of it calls for a new drawing
  new ResizeObserver(() => {
    if (Math.abs(section.clientWidth - width) > 1) {
      width = section.clientWidth;
      draw();
    }
  }).observe(section);
}

const ROOM = { left: 38, right: 14, top: 12, bottom: 26 };

class Panel {
  constructor({ task, problems, vote, unlike }) {
    this.task = task;
    this.at = -1;
    this.tip = el("div", { class: "tip", hidden: true, role: "status" });
    this.stage = el("div", {
      class: "stage",
      tabindex: 0,
      role: "group",
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
      onclick: (event) => this.choose(event),
      onpointerleave: (event) => event.pointerType === "mouse" && this.hide(), // a finger that lifts leaves it open
      onkeydown: (event) => this.key(event),
      onblur: () => this.hide(),
    });
    this.figure = el(
      "figure",
      {},
      el("figcaption", {}, el("strong", {}, task), ` ${unlike ? `unlike problems (${unlike})` : plural(problems, "problem")}, ${vote}`),
      el("div", { class: "holder" }, this.stage, this.tip),
    );
  }

  draw(all) {
    this.hide();
    const axis = state.axis;
    this.series = data.series.filter((s) => s.task === this.task && s.frontiers[axis] && !state.hidden.has(s.name));
    const spots = this.series
      .flatMap((s) => s.points.map((i) => ({ point: points[i], name: s.name })))
      .filter(({ point }) => point[axis] > 0 && (all || point.on.has(axis)))
      .map((spot) => ({ ...spot, log: Math.log2(spot.point[axis]) }));
    // Points of few problems count for no frontier, and may lie beyond its ends.
    const logs = [...this.series.flatMap((s) => s.frontiers[axis].log2), ...spots.map(({ log }) => log)];
    const low = Math.min(...logs),
      high = Math.max(...logs),
      margin = 0.07 * (high - low) || 0.5;
    this.span(low - margin, high + margin);
    this.spots = spots
      .map((spot) => ({ ...spot, x: this.x(spot.log), y: this.y(spot.point.accuracy) }))
      .sort((a, b) => a.x - b.x);
    this.fill(data.axes[axis]);
  }

  // Both axes: log2 of a cost from low to high, accuracies from 0 to 100 %.
  span(low, high) {
    this.low = low;
    this.high = high;
    this.width = Math.max(240, this.stage.clientWidth);
    this.height = Math.round(Math.min(340, Math.max(230, this.width * 0.72)));
    this.x = (log) => ROOM.left + ((log - this.low) / (this.high - this.low)) * (this.width - ROOM.left - ROOM.right);
    this.y = (value) => this.height - ROOM.bottom - ((value + 3) / 108) * (this.height - ROOM.top - ROOM.bottom);
  }

  // The picture of the series and spots.
  fill(against) {
    this.guide = svg("path", { class: "guide" });
    this.ring = svg("circle", { class: "ring", r: 8, visibility: "hidden" });
    const empty =
      !this.series.length &&
      svg("text", { x: this.width / 2, y: this.height / 2, "text-anchor": "middle" }, "no method chosen");
    const picture = svg(
      "svg",
      { viewBox: `0 0 ${this.width} ${this.height}`, width: this.width, height: this.height, "aria-hidden": "true" },
      this.grid(!this.series.length),
      this.guide,
      this.series.map((s) => this.line(s)),
      this.spots.map((spot) => this.mark(spot)),
      this.labels(),
      this.ring,
      empty,
    );
    this.stage.replaceChildren(picture);
    this.stage.setAttribute(
      "aria-label",
      `${this.task}: accuracy against ${against}; left and right arrow keys step through its points, Enter tells all about one`,
    );
  }

  grid(empty) {
    const parts = this.heights();
    if (empty) return parts;
    const least = this.low,
      most = this.high,
      none = Math.ceil(least) > most; // no power of two between: mark the middle
    const step = Math.ceil((this.high - this.low) / (inBytes(state.axis) ? 4 : 6));
    for (let power = none ? (least + most) / 2 : Math.ceil(least); power <= most; power++) {
      if (!none && ((power % step) + step) % step) continue;
      parts.push(
        svg("path", { class: "grid", d: `M${this.x(power)},${ROOM.top}V${this.height - ROOM.bottom}` }),
        svg(
          "text",
          { x: this.x(power), y: this.height - 8, "text-anchor": "middle" },
          none ? cost(state.axis, 2 ** power) : tick(state.axis, 2 ** power),
        ),
      );
    }
    return parts;
  }

  heights() {
    return [0, 20, 40, 60, 80, 100].map((value) =>
      svg(
        "g",
        {},
        svg("path", { class: "grid", d: `M${ROOM.left},${this.y(value)}H${this.width - ROOM.right}` }),
        svg("text", { x: ROOM.left - 6, y: this.y(value) + 4, "text-anchor": "end" }, String(value)),
      ),
    );
  }

  line({ name, frontiers }) {
    const f = frontiers[state.axis];
    const corner = (values) => f.log2.map((log, i) => [this.x(log), this.y(values[i])]);
    const known = f.log2.map((_, i) => f.low[i] != null && f.high[i] != null);
    const band = [
      ...corner(f.high).filter((_, i) => known[i]),
      ...corner(f.low)
        .filter((_, i) => known[i])
        .reverse(),
    ];
    const kept = f.kept.map((i) => [this.x(Math.log2(points[i][state.axis])), this.y(points[i].accuracy)]);
    // Steps: flat to the cost of the next point, the best at or under every cost.
    const steps = kept.slice(1).map(([x, y]) => `H${x}V${y}`).join("");
    return svg(
      "g",
      { colour: colour(name) },
      band.length > 2 && svg("path", { class: "band", d: `M${band.join("L")}Z` }),
      svg("path", { class: "line", d: `M${kept[0]}${steps}H${this.x(f.log2.at(-1))}` }),
    );
  }

  mark({ point, name, x, y }) {
    if (point.on.has(state.axis)) return svg("g", { colour: colour(name) }, marker(name, x, y, 4.2, { class: "kept" }));
    const [low, high] = [point.accuracy_low ?? point.accuracy, point.accuracy_high ?? point.accuracy].map(this.y);
    return svg(
      "g",
      { colour: colour(name), class: "faint" },
      svg("path", { d: `M${x},${high}V${low}`, stroke: "currentColor" }),
      marker(name, x, y, 2.6),
    );
  }

  // W-L-CR where there is room: ends of frontiers first, then the largest gains.
  labels() {
    const wanted = this.series.flatMap(({ name, frontiers }) =>
      frontiers[state.axis].kept.map((i, n, kept) => ({
        name,
        point: points[i],
        weight: n === kept.length - 1 ? 200 : n === 0 ? 100 : points[i].accuracy - points[kept[n - 1]].accuracy,
      })),
    );
    wanted.sort((a, b) => b.weight - a.weight);
    const taken = this.spots
      .filter(({ point }) => point.on.has(state.axis))
      .map(({ x, y }) => [x - 5, y - 5, x + 5, y + 5]);
    return wanted.slice(0, 4 * this.series.length).map(({ name, point }) => {
      const x = this.x(Math.log2(point[state.axis])),
        y = this.y(point.accuracy),
        w = 5.7 * point.label.length;
      for (const [left, top] of [
        [x - w - 6, y - 15],
        [x + 6, y + 4],
        [x - w / 2, y - 19],
        [x - w / 2, y + 8],
        [x + 8, y - 6],
        [x - w - 8, y - 6],
      ]) {
        const box = [left, top, left + w, top + 11];
        const inside = box[0] > ROOM.left && box[2] < this.width && box[1] > 0 && box[3] < this.height - ROOM.bottom;
        if (!inside || taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) continue;
        taken.push(box);
        return svg("text", { class: "label", x: left, y: top + 9, colour: colour(name) }, point.label);
      }
      return null;
    });
  }

  // The point at a pointer's place, and that place.
  near(event) {
    const box = this.stage.getBoundingClientRect(),
      x = event.clientX - box.left,
      y = event.clientY - box.top;
    const far = (spot) => Math.hypot(spot.x - x, spot.y - y) - (spot.point.on.has(state.axis) ? 4 : 0);
    const near = this.spots.reduce((best, spot) => (far(spot) < far(best) ? spot : best));
    return { spot: far(near) < 14 ? near : null, x };
  }

  point(event) {
    if (!this.spots.length) return;
    const { spot, x } = this.near(event);
    this.show(spot, x);
  }

  choose(event) {
    const { spot } = this.spots.length ? this.near(event) : {};
    if (!spot) return;
    choose(spot.point);
    if (event.pointerType === "mouse") this.tip.hidden = true; // it would cover what has just been shown
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") this.hide();
    if (event.key === "Enter" && this.at >= 0) {
      choose(this.spots[this.at].point);
      this.tip.hidden = true;
    }
    if (!step || !this.spots.length) return;
    event.preventDefault();
    const at = this.at < 0 && step < 0 ? this.spots.length : this.at;
    this.at = Math.max(0, Math.min(this.spots.length - 1, at + step));
    this.show(this.spots[this.at], this.spots[this.at].x, this.at);
  }

  show(spot, x, at = -1) {
    if (spot) x = spot.x;
    x = Math.max(ROOM.left, Math.min(this.width - ROOM.right, x));
    this.at = at;
    const log = this.low + ((x - ROOM.left) / (this.width - ROOM.left - ROOM.right)) * (this.high - this.low);
    this.guide.setAttribute("d", `M${x},${ROOM.top}V${this.height - ROOM.bottom}`);
    this.ring.setAttribute("visibility", spot ? "visible" : "hidden");
    if (spot) {
      this.ring.setAttribute("cx", spot.x);
      this.ring.setAttribute("cy", spot.y);
    }
    this.tip.replaceChildren(spot ? describe(spot) : "", ...this.readings(log));
    this.tip.hidden = false;
    const box = this.stage.getBoundingClientRect(),
      tall = this.tip.offsetHeight; // beside the panel, which stays in view
    const above = box.bottom + tall > innerHeight && box.top > tall;
    this.tip.style.top = `${above ? -tall : this.height - 4}px`;
    this.tip.style.left = `${Math.max(0, Math.min(x - this.tip.offsetWidth / 2, this.width - this.tip.offsetWidth))}px`;
  }

  // What the tip says besides the point that is near.
  readings(log) {
    return [
      el("div", {}, `Frontiers at ${cost(state.axis, 2 ** log)}`),
      el(
        "table",
        {},
        this.series.map((s) => reading(s, log)),
      ),
    ];
  }

  hide() {
    this.tip.hidden = true;
    this.at = -1;
    this.guide?.removeAttribute("d");
    this.ring?.setAttribute("visibility", "hidden");
  }
}
