// The list of problems and the filters of problems and chains.

// On a phone the opened problem stands below the list: go there.
function reveal(list, detail) {
  detail.scrollTop = 0;
  if (!getComputedStyle(list).getPropertyValue("--stacked").trim()) return;
  detail.focus();
  detail.scrollIntoView();
}

function drawChains(section, index) {
  const list = el("ul", { class: "problems", "aria-label": "Problems" });
  const detail = el("div", { class: "detail", tabindex: -1 });
  const count = el("output", { class: "count" });
  const all = (what, values) => [["", what], ...values.map((value, i) => [i, value])];
  let shown = PAGE,
    picked = false, // whether somebody opened a problem
    current = null;

  const wanted = (chain) =>
    (arm.value === "" || chain[ARM] === Number(arm.value)) &&
    (verdict.value === "" || chain[OUTCOME] === Number(verdict.value));
  const matches = (problem) =>
    (task.value === "" || problem.task === tasks[task.value]) &&
    (!disagree.checked || problem.disagree) &&
    problem.id.toLowerCase().includes(words.value.trim().toLowerCase()) &&
    problem.chains.some(wanted);
  const filter = () => {
    shown = PAGE;
    draw();
  };
  const draw = () => {
    const found = index.problems.filter(matches);
    count.textContent = `${plural(found.length, "problem")}, ${plural(
      found.reduce((sum, p) => sum + p.chains.filter(wanted).length, 0),
      "chain",
    )}`;
    if (!found.includes(current)) current = found[0] ?? null;
    list.replaceChildren(
      ...found
        .slice(0, shown)
        .map((problem) =>
          el(
            "li",
            {},
            el(
              "button",
              {
                type: "button",
                "aria-current": problem === current ? "true" : null,
                onclick: (event) => open(problem, event.currentTarget),
              },
              brief(problem, index),
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
    show();
  };
  const show = () =>
    detail.replaceChildren(
      ...(current ? full(current, index, wanted) : [el("p", { class: "help" }, "No chain passes the filters.")]),
    );
  const open = (problem, button) => {
    current = problem;
    list.querySelectorAll("[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
    button.setAttribute("aria-current", "true");
    picked = true;
    save();
    show();
    reveal(list, detail);
  };

  const [taskField, task] = choice("Task", all("all tasks", tasks), { onchange: filter });
  const [armField, arm] = choice(
    "Method",
    all(
      "all methods",
      index.arms.map((each) => each.name),
    ),
    { onchange: filter },
  );
  const [verdictField, verdict] = choice("Verdict", all("any verdict", index.verdicts), { onchange: filter });
  const [disagreeField, disagree] = tickbox("methods disagree", { onchange: filter });
  disagreeField.title = "All of one method's chains come to the right verdict together, all of another's do not";
  const words = el("input", { type: "search", placeholder: "e.g. aime-0-12", oninput: filter });
  section.append(
    el(
      "p",
      { class: "help" },
      "Every chain at its full length. ",
      el("b", {}, "Truncated"),
      " is a chain that its most tokens L cut off before it answered. ",
      "Methods disagree on a problem where all of one's chains come to the right verdict together and another's do not. Marks in a text show where a shorter L would cut it.",
    ),
    ...omissions(index),
    el(
      "div",
      { class: "filters" },
      taskField,
      armField,
      verdictField,
      el("label", { class: "field" }, el("span", {}, "Problem"), words),
      disagreeField,
      count,
    ),
    el("div", { class: "browser" }, list, detail),
  );

  keepSelect("task", task);
  keepSelect("method", arm);
  keepSelect("verdict", verdict);
  keepWords("search", words);
  keepBox("disagree", disagree);
  keep(
    "problem",
    () => (picked && current ? `${current.task}/${current.id}` : ""),
    (name) => {
      current = index.problems.find((problem) => `${problem.task}/${problem.id}` === name) ?? null;
      picked = current != null;
      shown = picked ? Math.max(PAGE, index.problems.indexOf(current) + 1) : PAGE;
    },
  );
  REDRAWS.push(draw);
  draw();
  if (picked && asked.has("problem")) section.scrollIntoView();
}

function omissions({ hidden, total, shortened, limit, unexplained, beside }) {
  const notes = [];
  if (hidden)
    notes.push(
      `${hidden.toLocaleString("en")} of ${plural(total, "chain")} are not listed, to keep this file small: of every problem and method the first ones are.`,
    );
  if (limit === 0) notes.push("Texts are left out to keep this file small.");
  else if (shortened)
    notes.push(
      `Of ${plural(shortened, "text")} longer than ${plural(limit, "character")} only the beginning and the end are here, to keep this file small.`,
    );
  if (beside) notes.push(`Texts are in the folder ${beside.folder} beside this file, and are loaded when a chain is opened.`);
  if (hidden || limit === 0 || shortened) notes.push("Numbers rest on all chains; samples.jsonl has them whole.");
  if (unexplained) notes.push(unexplained);
  return notes.length ? [el("p", { class: "notice", id: "omissions" }, notes.join(" "))] : [];
}

const tally = ([arm, right, of, voted], index) =>
  el(
    "span",
    { class: "tally", title: `together ${voted ? "right" : "wrong"}` },
    swatch(index.arms[arm].series),
    ` ${index.arms[arm].name} `,
    el("b", {}, `${right}/${of}`),
    voted ? " ✓" : " ✗",
  );

// One tally a method where there are many CRs.
function united(arms, index) {
  const of = (arm) => index.arms[arm[ARM]].series;
  return [...new Set(arms.map(of))].map((name) => {
    const part = arms.filter((arm) => of(arm) === name);
    const [right, all, votes] = [1, 2, 3].map((field) => part.reduce((sum, each) => sum + Number(each[field]), 0));
    return el(
      "span",
      { class: "tally", title: `together right at ${votes} of ${plural(part.length, "CR")}` },
      swatch(name),
      ` ${name} `,
      el("b", {}, `${right}/${all}`),
      ` ${votes ? "✓" : ""}${votes < part.length ? "✗" : ""}`,
    );
  });
}

function brief(problem, index) {
  const level = problem.level == null ? "" : `level ${problem.level}`;
  return [
    el(
      "span",
      { class: "id" },
      el("b", {}, problem.id),
      ` ${tasks.length > 1 && !problem.id.startsWith(problem.task) ? problem.task : ""} `,
      el("small", {}, level),
      problem.disagree && el("mark", {}, "disagree"),
    ),
    el(
      "span",
      { class: "tallies" },
      problem.arms.length > 4 ? united(problem.arms, index) : problem.arms.map((arm) => tally(arm, index)),
    ),
  ];
}
