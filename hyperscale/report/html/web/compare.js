// Two points side by side: the problems that one is right on and the other wrong, and their chains.

const RIGHT = 500; // thousandths: right in more than half of the draws of W chains
const OUTCOMES = [
  ["differ", "one right, the other wrong", (a, b) => a !== b],
  ["a", "only A right", (a, b) => a && !b],
  ["b", "only B right", (a, b) => !a && b],
  ["both", "both right", (a, b) => a && b],
  ["none", "both wrong", (a, b) => !a && !b],
  ["all", "all problems", () => true],
];
// Filled in by `drawCompare`, which the chosen point's buttons use.
const compare = { set: () => {} };

function drawCompare(section, index) {
  const problemsOf = (task) => index.problems.filter((problem) => problem.task === task);
  const sides = {};
  const list = el("ul", { class: "problems", "aria-label": "Problems of the two points" });
  const detail = el("div", { class: "detail", tabindex: -1 });
  const count = el("output", { class: "count" });
  let current = null, // the place of a problem among its task's
    picked = false, // whether somebody opened it
    shown = PAGE;

  // Both points' shares of every problem that both have.
  const pairs = () => {
    const [a, b] = ["a", "b"].map((side) => index.points[points.indexOf(sides[side].point)]);
    if (!a || !b) return [];
    return problemsOf(task.value)
      .map((problem, i) => ({ problem, i, a: a[1][i], b: b[1][i] }))
      .filter((pair) => pair.a != null && pair.b != null);
  };
  const isRight = (share) => share > RIGHT;

  const draw = () => {
    const all = pairs();
    const tests = Object.fromEntries(OUTCOMES.map(([key, , test]) => [key, test]));
    const number = (key) => all.filter((pair) => tests[key](isRight(pair.a), isRight(pair.b))).length;
    const found = all
      .filter((pair) => tests[outcome.value](isRight(pair.a), isRight(pair.b)))
      .sort((x, y) => Math.abs(y.a - y.b) - Math.abs(x.a - x.b));
    count.textContent = `only A right ${number("a")}, only B right ${number("b")}, both ${number("both")}, none ${number("none")} of ${plural(all.length, "problem")}`;
    if (!found.some((pair) => pair.i === current)) current = found[0]?.i ?? null;
    list.replaceChildren(
      ...found
        .slice(0, shown)
        .map((pair) =>
          el(
            "li",
            {},
            el(
              "button",
              {
                type: "button",
                "aria-current": pair.i === current ? "true" : null,
                onclick: (event) => {
                  current = pair.i;
                  list.querySelectorAll("[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
                  event.currentTarget.setAttribute("aria-current", "true");
                  picked = true;
                  show(pair);
                  save();
                  reveal(list, detail);
                },
              },
              el("span", { class: "id" }, el("b", {}, pair.problem.id)),
              el(
                "span",
                { class: "tallies" },
                ["a", "b"].map((side) =>
                  el(
                    "span",
                    { class: "tally" },
                    swatch(sides[side].point.series),
                    ` ${side.toUpperCase()} `,
                    el("b", {}, `${tidy(pair[side] / 10)} %`),
                    isRight(pair[side]) ? " ✓" : " ✗",
                  ),
                ),
              ),
            ),
          ),
        ),
      found.length > shown
        ? el(
            "li",
            {},
            el(
              "button",
              {
                type: "button",
                class: "more",
                onclick: () => {
                  shown += PAGE;
                  draw();
                },
              },
              `${found.length - shown} more`,
            ),
          )
        : "",
    );
    show(found.find((pair) => pair.i === current));
  };

  const show = (pair) => {
    if (!pair) {
      const same = sides.a.point === sides.b.point;
      const text = same ? "A and B are the same point: choose another one." : "No problem has this outcome.";
      return detail.replaceChildren(el("p", { class: "help" }, text));
    }
    detail.replaceChildren(
      ...posed(pair.problem),
      el(
        "div",
        { class: "sides" },
        ["a", "b"].map((side) => column(pair, side)),
      ),
    );
  };

  // A point's chains of a problem, each cut at the point's L.
  const column = (pair, side) => {
    const point = sides[side].point,
      [arm] = index.points[points.indexOf(point)];
    const chains = pair.problem.chains
      .map((chain, i) => ({ chain, i, cut: chain[ARM] === arm && cutAt(chain, point.L, index.arms[arm]) }))
      .filter(({ cut }) => cut);
    return el(
      "div",
      { class: "side", role: "group", "aria-label": `${side.toUpperCase()}: ${point.series} ${point.label}` },
      el(
        "h4",
        {},
        `${side.toUpperCase()} `,
        swatch(point.series),
        ` ${point.series} ${point.label}: right in ${tidy(pair[side] / 10)} % of draws of ${plural(point.W, "chain")}`,
      ),
      listed(chains, ({ chain, i, cut }) => row(pair.problem, index, chain, i, cut)),
      !chains.length && el("p", { class: "help" }, "None of its chains is listed on this page."),
    );
  };

  // --- controls ---------------------------------------------------------------------------------------------------
  const options = (select, side) => {
    const of = points.filter((point) => point.task === task.value);
    select.replaceChildren(
      ...of.map((point) =>
        el("option", { value: String(points.indexOf(point)) }, pointName(point).slice(point.task.length + 1)),
      ),
    );
    const series = data.series.filter((s) => s.task === task.value);
    const best = (s) => (s.frontiers[Object.keys(data.axes)[0]]?.kept ?? s.points).at(-1);
    const usual = side === "a" ? best(series[0]) : series.length > 1 ? best(series[1]) : series[0].points[0];
    select.value = String(usual);
    sides[side].usual = usual;
  };
  const side = (key) => {
    const [field, select] = choice(key.toUpperCase(), [], { onchange: () => draw() });
    sides[key] = {
      field,
      select,
      get point() {
        return points[Number(select.value)];
      },
    };
    return field;
  };
  const renew = () => {
    shown = PAGE;
    current = null;
    options(sides.a.select, "a");
    options(sides.b.select, "b");
  };
  const [taskField, task] = choice(
    "Task",
    tasks.map((name) => [name, name]),
    {
      onchange: () => {
        renew();
        draw();
      },
    },
  );
  const [outcomeField, outcome] = choice(
    "Outcome",
    OUTCOMES.map(([key, text]) => [key, text]),
    {
      onchange: () => {
        shown = PAGE;
        draw();
      },
    },
  );
  const turn = el(
    "button",
    {
      type: "button",
      class: "act",
      onclick: () => {
        [sides.a.select.value, sides.b.select.value] = [sides.b.select.value, sides.a.select.value];
        draw();
        save();
      },
    },
    "Swap",
  );
  section.append(
    el(
      "p",
      { class: "help" },
      "Two points on the same problems: where one comes to the right verdict in more than half of the draws of its W ",
      "chains and the other does not. Chains stand at the L of their point.",
    ),
    el("div", { class: "filters" }, taskField, side("a"), side("b"), turn, outcomeField, count),
    el("div", { class: "browser" }, list, detail),
  );

  compare.set = (key, point) => {
    if (task.value !== point.task) {
      task.value = point.task;
      renew();
    }
    sides[key].select.value = String(points.indexOf(point));
    draw();
    save();
    section.scrollIntoView();
    sides[key].select.focus({ preventScroll: true });
  };

  keepSelect("versus", task);
  // Options depend on the task, which is set before them.
  const apply = (key) => (name) => {
    if (key === "a") renew();
    const point = name ? findPoint(`${task.value} ${name}`) : null;
    if (point) sides[key].select.value = String(points.indexOf(point));
  };
  renew();
  for (const key of ["a", "b"])
    keep(
      key,
      () =>
        Number(sides[key].select.value) === sides[key].usual
          ? ""
          : (sides[key].select.selectedOptions[0]?.textContent ?? ""),
      apply(key),
    );
  keepSelect("outcome", outcome);
  keep(
    "pair",
    () => (picked && current != null ? problemsOf(task.value)[current].id : ""),
    (id) => {
      const place = problemsOf(task.value).findIndex((problem) => problem.id === id);
      picked = place >= 0;
      current = picked ? place : null;
    },
  );
  REDRAWS.push(draw);
  draw();
  if (asked.has("pair")) section.scrollIntoView();
}
