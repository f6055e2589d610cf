// The point that somebody chose: what it is, the command that made it, and the way to its problems.

const several = data.runs.length > 1;
const runOf = (point) => data.runs.find((run) => run.name === point.run) ?? data.runs[0];
// Its words stay whole where a line breaks.
const commandOf = (run) =>
  el(
    "code",
    {},
    run.command.split(" ").flatMap((word, i) => [i ? " " : null, el("span", { class: "word" }, word)]),
  );
// What a point is called in the address and in lists: distinct within the page.
const pointName = (point) => [point.task, point.series, point.label, several && point.run].filter(Boolean).join(" ");
const findPoint = (name) => points.find((point) => pointName(point) === name) ?? null;

const chosen = { point: null, listeners: [] };
function choose(point) {
  chosen.point = point;
  chosen.listeners.forEach((listener) => listener());
  save();
}

function drawChosen(node) {
  keep(
    "point",
    () => (chosen.point ? pointName(chosen.point) : ""),
    (name) => {
      chosen.point = findPoint(name);
      draw();
    },
  );
  function draw() {
    const point = chosen.point;
    node.hidden = !point;
    if (!point) return node.replaceChildren();
    const facts = {
      task: point.task,
      method: point.method,
      "chains W": point.W,
      "tokens L": point.L.toLocaleString("en"),
      compression: point.kv_budget ? plural(point.kv_budget, "token") : `${point.CR}×`,
      "realised CR": fixed(point.realised_cr, 2),
      model: point.model,
      engine: point.engine,
      "cache type": point.kv_dtype,
      run: point.run,
      vote: point.vote,
      accuracy: `${withInterval(point)} %`,
      problems: point.n_problems,
      seeds: point.n_seeds,
      ...Object.fromEntries(Object.keys(data.axes).map((axis) => [axis, cost(axis, point[axis])])),
    };
    const command = commandOf(runOf(point));
    const told = el("output", { class: "count" });
    const button = (text, onclick) => el("button", { type: "button", class: "act", onclick }, text);
    node.replaceChildren(
      el("h3", {}, swatch(point.series), ` ${point.series} ${point.label} on ${point.task}`),
      el(
        "dl",
        {},
        Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))),
      ),
      el(
        "p",
        { class: "count" },
        data.kept.some((map) => map.task === point.task)
          ? ["Costs are means over layers and heads; ", el("a", { href: "#heads" }, "which of them keep entries"), "."]
          : "Which layers and heads keep its entries was not told by the engine: costs are means over all of them.",
      ),
      el("p", { class: "count" }, "The run that made it:"),
      el("pre", { class: "command" }, command),
      el(
        "div",
        { class: "acts" },
        button("Copy the command", async () => {
          try {
            await navigator.clipboard.writeText(command.textContent);
            told.textContent = "copied";
          } catch {
            getSelection().selectAllChildren(command); // a page from a disk may not be allowed to
            told.textContent = "selected: copy it with your keys";
          }
        }),
        button("Its problems, as A", () => compare.set("a", point)),
        button("as B", () => compare.set("b", point)),
        button("Close", () => choose(null)),
        told,
      ),
    );
  }
  chosen.listeners.push(draw);
  draw();
}
