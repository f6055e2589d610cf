// Tables that sort by any column, and the two that use it: points and margins.

// columns: {title, help, value(row): what it sorts by, show(row): what it shows, number: whether to align right}
class Sortable {
  constructor(caption, columns, sort = 0) {
    this.columns = columns;
    this.by = sort;
    this.down = false;
    this.rows = [];
    this.head = columns.map((column, i) =>
      el(
        "th",
        { scope: "col", class: column.number ? "number" : "" },
        el("button", { type: "button", title: column.help, onclick: () => this.sort(i) }, column.title),
      ),
    );
    this.body = el("tbody");
    this.node = el(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
      el("table", {}, el("thead", {}, el("tr", {}, this.head)), this.body),
    );
  }

  sort(i) {
    this.down = i === this.by ? !this.down : Boolean(this.columns[i].number);
    this.by = i;
    this.show(this.rows);
    save();
  }

  // Keep its order in the address: a column's title, behind a minus where it descends.
  keep(name) {
    const usual = this.by;
    keep(
      name,
      () => (this.by === usual && !this.down ? "" : (this.down ? "-" : "") + this.columns[this.by].title),
      (text) => {
        const place = this.columns.findIndex((column) => column.title === text.replace(/^-/, ""));
        this.by = place < 0 ? usual : place;
        this.down = place >= 0 && text.startsWith("-");
      },
    );
  }

  show(rows) {
    this.rows = rows;
    const value = this.columns[this.by].value;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x == null || y == null) return (x == null) - (y == null); // what is missing comes last either way
      return (
        (this.down ? -1 : 1) *
        (typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }))
      );
    };
    this.head.forEach((cell, i) =>
      cell.setAttribute("aria-sort", i !== this.by ? "none" : this.down ? "descending" : "ascending"),
    );
    this.body.replaceChildren(
      ...[...rows].sort(order).map((row) =>
        el(
          "tr",
          row.choose ? { class: "choosable", title: "Click: all about this point", onclick: row.choose } : {},
          this.columns.map((column) => el("td", { class: column.number ? "number" : "" }, column.show(row))),
        ),
      ),
    );
  }
}

const named = (name) => [swatch(name), ` ${name}`];

function drawPoints(section) {
  const column = (title, key, show = (point) => amount(point[key]), help = "", number = true) => ({
    title,
    help,
    number,
    show,
    value: (point) => point[key],
  });
  const runs = data.runs.length > 1 ? [column("run", "run", (point) => point.run, "", false)] : [];
  const table = new Sortable(
    "Points",
    [
      column("task", "task", (point) => point.task, "", false),
      { title: "method", value: (point) => names.indexOf(point.series), show: (point) => named(point.series) },
      {
        title: "W-L-CR",
        help: "chains – most tokens each – compression ratio",
        value: (p) => p.L * 1e6 + p.W * 1e3 + (p.CR ?? 0) - (p.kv_budget ? 1 / p.kv_budget : 0),
        show: (p) => p.label,
      },
      ...runs,
      column(
        "accuracy %",
        "accuracy",
        withInterval,
        "with its 95 % interval (Wilson's, problems are clusters)",
      ),
      ...Object.keys(data.axes).map((axis) => column(axis, axis, (p) => cost(axis, p[axis]), data.axes[axis])),
      column(
        "realised CR",
        "realised_cr",
        (p) => fixed(p.realised_cr, 2),
        "reads a full cache would have needed / reads made",
      ),
      column("truncated %", "truncated", (p) => fixed(p.truncated, 0), "chains that L cut off before an answer"),
      column("no answer %", "no_answer", (p) => fixed(p.no_answer, 0), "chains that ended without an answer"),
      column("problems", "n_problems"),
    ],
    0,
  );
  const draw = () => {
    const found = points.filter(
      (p) =>
        (!task.value || p.task === task.value) &&
        !state.hidden.has(p.series) &&
        (!method.value || p.series === method.value) &&
        (!best.checked || p.on.has(state.axis)) &&
        `${p.task} ${p.series} ${p.label} ${p.W}-${p.L}-${p.kv_budget ? `${p.kv_budget}t` : p.CR} ${p.run}`
          .toLowerCase()
          .includes(words.value.trim().toLowerCase()),
    );
    count.textContent = `${found.length} of ${plural(points.length, "point")}`;
    bestText.textContent = `on the ${state.axis} frontier`;
    table.show(found.map((point) => Object.assign(point, { choose: () => choose(point) })));
  };
  const [taskField, task] = choice("Task", [["", "all tasks"], ...tasks.map((name) => [name, name])], {
    onchange: draw,
  });
  const [methodField, method] = choice("Method", [["", "all methods"], ...names.map((name) => [name, name])], {
    onchange: draw,
  });
  const bestText = el("span"),
    [bestField, best] = tickbox(bestText, { onchange: draw });
  const words = el("input", { type: "search", placeholder: "e.g. 4-1K", oninput: draw });
  const count = el("output", { class: "count" });
  section.append(
    el(
      "div",
      { class: "filters" },
      taskField,
      methodField,
      el("label", { class: "field" }, el("span", {}, "Search"), words),
      bestField,
      count,
    ),
    table.node,
  );
  keepSelect("of-task", task);
  keepSelect("of-method", method);
  keepWords("of-search", words);
  keepBox("best", best);
  table.keep("sort");
  state.listeners.push(draw);
  draw();
}

function drawMargins(section) {
  const methods = [...new Set(data.margins.flatMap((m) => [m.b, m.a]))];
  if (methods.length < 2) {
    section.append(
      el("p", { class: "help" }, "A margin compares two methods of a model on a task; no task here has two methods of one model."),
    );
    return;
  }
  const models = new Set(data.margins.map((m) => m.model));
  const nameOf = (m, method) => (names.includes(method) ? method : `${method} (${m.model})`);
  const flip = (m) => ({
    ...m,
    a: m.b,
    b: m.a,
    ...Object.fromEntries(
      ["linear", "log2"].flatMap((scale) => [
        [scale, m[scale] == null ? null : -m[scale]],
        [`${scale}_ci`, m[`${scale}_ci`].map((end) => (end == null ? null : -end)).reverse()],
      ]),
    ),
  });
  const interval = (value, [low, high]) =>
    value == null ? "NA" : low == null ? signed(value) : `${signed(value)} [${signed(low)}, ${signed(high)}]`;
  const scaled = (scale, help) => ({
    title: `${scale} margin`,
    help,
    number: true,
    value: (m) => m[scale],
    show: (m) => interval(m[scale], m[`${scale}_ci`]),
  });
  const table = new Sortable("Margins", [
    { title: "task", value: (m) => m.task, show: (m) => m.task },
    ...(models.size > 1 ? [{ title: "model", value: (m) => m.model, show: (m) => m.model }] : []),
    { title: "method", value: (m) => m.a, show: (m) => named(nameOf(m, m.a)) },
    {
      title: "log2, 95 % interval",
      help: "ticks at −25, 0 and +25 points",
      value: (m) => m.log2,
      show: (m) => whisker(m.log2, m.log2_ci, nameOf(m, m.a)),
    },
    scaled("log2", "area between the frontiers over log2 of the cost, in points of accuracy"),
    scaled("linear", "the same over the cost itself"),
    {
      title: "common costs",
      value: (m) => m.common_costs[0],
      show: (m) => (m.log2 == null ? "none" : m.common_costs.map((n) => cost(m.axis, n)).join(" to ")),
    },
    { title: "problems", number: true, value: (m) => m.n_problems, show: (m) => String(m.n_problems) },
  ]);
  const title = el("p", { class: "axis-title" });
  const draw = () => {
    title.textContent = `By how many points of accuracy each method lies above ${over.value}, by ${state.axis}`;
    const sided = data.margins
      .filter((m) => m.axis === state.axis)
      .map((m) => (m.b === over.value ? m : m.a === over.value ? flip(m) : null));
    table.show(sided.filter((m) => m && !state.hidden.has(nameOf(m, m.a))));
  };
  const [overField, over] = choice(
    "Margin over",
    methods.map((name) => [name, name]),
    { onchange: draw },
  );
  section.append(
    el(
      "p",
      { class: "help" },
      "Area between two frontiers over their common costs, divided by its length. Intervals resample the problems, ",
      "the same ones for both methods; with fewer than ",
      String(data.enough),
      " problems there is none. NA where the frontiers share no range of costs. The cost axis is the one chosen above.",
    ),
    el("div", { class: "filters" }, overField),
    title,
    table.node,
  );
  keepSelect("over", over);
  table.keep("margins-sort");
  state.listeners.push(draw);
  draw();
}

// A margin and its interval against zero, from −50 to +50 points; an arrow where the interval goes further.
function whisker(value, [low, high], name) {
  if (value == null) return "NA";
  const x = (n) => 75 + Math.max(-72, Math.min(72, 1.44 * n));
  const arrow = (end, side) =>
    Math.abs(end) > 50 &&
    svg("path", { d: `M${x(end) - 5 * side},5l${5 * side},4l${-5 * side},4`, fill: "none", stroke: "currentColor" });
  return svg(
    "svg",
    { class: "whisker", viewBox: "0 0 150 18", role: "img", "aria-label": signed(value), colour: colour(name) },
    svg("path", { class: "grid", d: "M75,0V18M39,4V14M111,4V14" }),
    low != null && svg("path", { d: `M${x(low)},9H${x(high)}`, stroke: "currentColor", "stroke-width": 2 }),
    low != null && arrow(low, Math.sign(low)),
    high != null && arrow(high, Math.sign(high)),
    marker(name, x(value), 9, 4.5),
  );
}
