// A panel a task: accuracy against the chosen cost, with the value of every frontier under the pointer.

function drawFrontiers(section) {
  const axes = el(
    "fieldset",
    { class: "axes" },
    el("legend", {}, "Cost axis"),
    Object.keys(data.axes).map((axis) =>
      el(
        "label",
        {},
        el("input", {
          type: "radio",
          name: "axis",
          value: axis,
          checked: axis === state.axis,
          onchange: () => {
            state.axis = axis;
            changed();
          },
        }),
        el("span", {}, axis),
      ),
    ),
  );
  const legend = el(
    "fieldset",
    { class: "legend" },
    el("legend", {}, "Methods"),
    names.map((name) =>
      el(
        "label",
        {},
        el("input", {
          type: "checkbox",
          name: "method",
          value: name,
          checked: true,
          onchange: (event) => {
            state.hidden[event.target.checked ? "delete" : "add"](name);
            changed();
          },
        }),
        swatch(name),
        name,
      ),
    ),
  );
  const [all, allBox] = tickbox("points off the frontier", { checked: true, onchange: changed });
  legend.append(all);
  keep(
    "axis",
    () => (state.axis === Object.keys(data.axes)[0] ? "" : state.axis),
    (name) => {
      state.axis = name in data.axes ? name : Object.keys(data.axes)[0];
      axes.querySelectorAll("input").forEach((input) => (input.checked = input.value === state.axis));
    },
  );
  keep(
    "hidden",
    () => [...state.hidden].join(","),
    (text) => {
      state.hidden = new Set(text.split(",").filter((name) => names.includes(name)));
      legend.querySelectorAll("[name=method]").forEach((box) => (box.checked = !state.hidden.has(box.value)));
    },
  );
  keepBox("off-frontier", allBox, true);
  const panels = data.panels.map((panel) => new Panel(panel));
  const title = el("p", { class: "axis-title" });
  section.append(
    el(
      "p",
      { class: "help" },
      "Steps: the best accuracy measured at or under each cost. Bands are 95 % bootstrap bands over problems, ",
      "bars are 95 % intervals (Wilson); points are written W-L-CR (chains, most tokens each, compression ratio). ",
      "Point at a panel, or focus it and press ← →; a click or Enter tells all about a point and its command.",
    ),
    el("div", { class: "toolbar" }, axes, legend),
    title,
    el(
      "div",
      { class: "panels" },
      panels.map((panel) => panel.figure),
    ),
  );
  const draw = () => {
    title.textContent = `Accuracy (%) against ${data.axes[state.axis]}, log2 scale`;
    panels.forEach((panel) => panel.draw(allBox.checked));
  };
  keepDrawn(section, draw);
}
