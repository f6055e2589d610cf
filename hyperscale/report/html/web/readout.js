// Writes a panel's tip: the point that is near, and every frontier's height and band.

function describe({ point, name }) {
  const line = (...text) => el("div", {}, ...text);
  return el(
    "div",
    { class: "spot" },
    line(
      swatch(name),
      el("strong", {}, ` ${name} ${point.label}`),
      point.on.has(state.axis) ? ", on the frontier" : "",
    ),
    line(
      `${point.W} × ${plural(point.L, "token")}, ${point.kv_budget ? `budget ${point.kv_budget} tokens` : `CR ${point.CR}`}; ` +
        `${point.model}, ${point.engine}${several ? `, run ${point.run}` : ""}`,
    ),
    line(`${withInterval(point)} % of ${plural(point.n_problems, "problem")}`),
    line(`${state.axis}: ${cost(state.axis, point[state.axis])}; realised CR ${fixed(point.realised_cr, 2)}`),
    line(`${fixed(point.truncated, 0)} % truncated, ${fixed(point.no_answer, 0)} % without an answer`),
    line(commandOf(runOf(point))),
  );
}

// A frontier's height and band where the pointer is: the best at or under that cost.
function reading({ name, frontiers }, log) {
  const f = frontiers[state.axis],
    end = f.log2.length - 1,
    slack = 1e-3;
  const cells = (...texts) =>
    el(
      "tr",
      {},
      el("td", {}, swatch(name), ` ${name}`),
      texts.map((text) => el("td", {}, text)),
    );
  if (log < f.log2[0] - slack || log > f.log2[end] + slack) return cells("–", "");
  const reached = f.kept.filter((i) => Math.log2(points[i][state.axis]) <= log + slack);
  const value = points[reached.at(-1) ?? f.kept[0]].accuracy;
  const place = Math.round(((log - f.log2[0]) / (f.log2[end] - f.log2[0] || 1)) * end);
  const low = f.low[place] == null ? null : between(f.log2, f.low, log),
    high = low == null ? null : between(f.log2, f.high, log);
  return cells(fixed(value), low == null || high == null ? "" : `[${fixed(low, 0)}, ${fixed(high, 0)}]`);
}

function between(xs, ys, x) {
  const right = xs.findIndex((each) => each >= x);
  if (right <= 0) return ys[right < 0 ? ys.length - 1 : 0];
  const [x0, x1, y0, y1] = [xs[right - 1], xs[right], ys[right - 1], ys[right]];
  return y0 == null || y1 == null ? null : y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
}
