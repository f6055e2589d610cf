// Problems, their chains, and the chains' texts, which are unpacked when somebody opens one.

const VERDICT = { right: "✓", wrong: "✗", truncated: "✂", "no answer": "∅" };
const PAGE = 100; // problems or chains that are listed before somebody asks for more
const [ARM, SEED, CHAIN, LIMIT, OUTCOME, FINISH, PROMPT, CUTS] = [0, 1, 2, 3, 4, 5, 6, 7];
const [TOKENS, READS, PEAK, CHARS, ANSWER, CORRECT] = [0, 1, 2, 3, 4, 5];

async function drawChains(section) {
  if (!("DecompressionStream" in window)) {
    section.append(el("p", { class: "notice" }, "This browser cannot unpack the chains (it lacks DecompressionStream): use one from 2023 or later."));
    return;
  }
  const index = await unpack("index");
  const list = el("ul", { class: "problems", "aria-label": "Problems" });
  const detail = el("div", { class: "detail", tabindex: -1 });
  const count = el("output", { class: "count" });
  const all = (what, values) => [["", what], ...values.map((value, i) => [i, value])];
  let shown = PAGE, current = null;

  const wanted = (chain) => (arm.value === "" || chain[ARM] === Number(arm.value)) && (verdict.value === "" || chain[OUTCOME] === Number(verdict.value));
  const matches = (problem) => (task.value === "" || problem.task === tasks[task.value]) && (!disagree.checked || problem.disagree)
    && problem.id.toLowerCase().includes(words.value.trim().toLowerCase()) && problem.chains.some(wanted);
  const filter = () => { shown = PAGE; draw(); };
  const draw = () => {
    const found = index.problems.filter(matches);
    count.textContent = `${plural(found.length, "problem")}, ${plural(found.reduce((sum, p) => sum + p.chains.filter(wanted).length, 0), "chain")}`;
    if (!found.includes(current)) current = found[0] ?? null;
    list.replaceChildren(...found.slice(0, shown).map((problem) => el("li", {}, el("button", { type: "button",
      "aria-current": problem === current ? "true" : null, onclick: (event) => open(problem, event.currentTarget) }, brief(problem, index)))),
      found.length > shown ? el("li", {}, el("button", { type: "button", class: "more", onclick: () => { shown += PAGE; draw(); } }, `${found.length - shown} more`)) : "");
    show();
  };
  const show = () => detail.replaceChildren(...(current ? full(current, index, wanted) : [el("p", { class: "help" }, "No chain passes the filters.")]));
  const open = (problem, button) => {
    current = problem;
    list.querySelectorAll("[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
    button.setAttribute("aria-current", "true");
    history.replaceState(null, "", `#${encodeURIComponent(`${problem.task}/${problem.id}`)}`);
    show();
    detail.scrollTop = 0;
    if (getComputedStyle(list).getPropertyValue("--stacked").trim()) { detail.focus(); detail.scrollIntoView(); }
  };

  const [taskField, task] = choice("Task", all("all tasks", tasks), { onchange: filter });
  const [armField, arm] = choice("Method", all("all methods", index.arms.map((each) => each.name)), { onchange: filter });
  const [verdictField, verdict] = choice("Verdict", all("any verdict", index.verdicts), { onchange: filter });
  const [disagreeField, disagree] = tickbox("methods disagree", { onchange: filter });
  disagreeField.title = "Problems that one method's chains, each at its full length, vote right and another's wrong";
  const words = el("input", { type: "search", placeholder: "e.g. aime-0-12", oninput: filter });
  section.append(el("p", { class: "help" }, "Every chain at its full length. ", el("b", {}, "Truncated"), " is a chain that its most tokens L cut off before it answered. ",
    "Methods disagree on a problem where the vote of one's chains is right and another's is wrong. Marks in a text show where a shorter L would cut it."), ...omissions(index),
  el("div", { class: "filters" }, taskField, armField, verdictField, el("label", { class: "field" }, el("span", {}, "Problem"), words), disagreeField, count),
  el("div", { class: "browser" }, list, detail));

  let asked = "";
  try { asked = decodeURIComponent(location.hash.slice(1)); } catch { /* somebody's broken link: show the first problem */ }
  current = index.problems.find((problem) => `${problem.task}/${problem.id}` === asked) ?? null;
  const linked = current;
  if (current) shown = Math.max(PAGE, index.problems.indexOf(current) + 1);
  draw();
  if (linked) section.scrollIntoView();
}

function omissions({ hidden, total, shortened, limit }) {
  const notes = [];
  if (hidden) notes.push(`${hidden.toLocaleString("en")} of ${plural(total, "chain")} are not listed, to keep this file small: of every problem and method the first ones are.`);
  if (limit === 0) notes.push("Texts are left out to keep this file small.");
  else if (shortened) notes.push(`Of ${plural(shortened, "text")} longer than ${plural(limit, "character")} only the beginning and the end are here, to keep this file small.`);
  if (notes.length) notes.push("Numbers rest on all chains; samples.jsonl has them whole.");
  return notes.length ? [el("p", { class: "notice", id: "omissions" }, notes.join(" "))] : [];
}

const tally = ([arm, right, of, voted], index) => el("span", { class: "tally", title: `vote ${voted ? "right" : "wrong"}` },
  swatch(index.arms[arm].series), ` ${index.arms[arm].name} `, el("b", {}, `${right}/${of}`), voted ? " ✓" : " ✗");

// One tally a method where there are many CRs.
function united(arms, index) {
  const of = (arm) => index.arms[arm[ARM]].series;
  return [...new Set(arms.map(of))].map((name) => {
    const part = arms.filter((arm) => of(arm) === name);
    const [right, all, votes] = [1, 2, 3].map((field) => part.reduce((sum, each) => sum + Number(each[field]), 0));
    return el("span", { class: "tally", title: `${votes} of ${plural(part.length, "vote")} right` }, swatch(name), ` ${name} `, el("b", {}, `${right}/${all}`),
      ` ${votes ? "✓" : ""}${votes < part.length ? "✗" : ""}`);
  });
}

function brief(problem, index) {
  const level = problem.level == null ? "" : `level ${problem.level}`;
  return [el("span", { class: "id" }, el("b", {}, problem.id), ` ${tasks.length > 1 && !problem.id.startsWith(problem.task) ? problem.task : ""} `, el("small", {}, level), problem.disagree && el("mark", {}, "disagree")),
    el("span", { class: "tallies" }, problem.arms.length > 4 ? united(problem.arms, index) : problem.arms.map((arm) => tally(arm, index)))];
}

function full(problem, index, wanted) {
  const chains = problem.chains.map((chain, i) => ({ chain, i })).filter(({ chain }) => wanted(chain));
  const rest = el("div", { class: "chains" });
  const more = (from) => {
    rest.append(...chains.slice(from, from + PAGE).map(({ chain, i }) => row(problem, index, chain, i)));
    if (from + PAGE < chains.length) rest.append(el("button", { type: "button", class: "more",
      onclick: (event) => { event.currentTarget.remove(); more(from + PAGE); } }, `${chains.length - from - PAGE} more`));
  };
  more(0);
  return [el("h3", {}, `${problem.task} / ${problem.id}`),
    problem.question && el("details", { class: "question", open: problem.question.length < 800 }, el("summary", {}, "Question"), el("pre", {}, problem.question)),
    problem.target && el("p", {}, "Expected answer: ", el("code", {}, problem.target)),
    el("p", { class: "tallies" }, problem.arms.map((arm) => tally(arm, index))),
    el("p", { class: "count" }, `${chains.length} of ${plural(problem.chains.length, "chain")} shown`), rest].filter(Boolean);
}

function row(problem, index, chain, i) {
  const last = chain[CUTS].at(-1), verdict = index.verdicts[chain[OUTCOME]], answer = last[ANSWER] == null ? "–" : problem.answers[last[ANSWER]];
  const several = new Set(problem.chains.map((each) => each[SEED])).size > 1;
  const box = el("details", { class: "chain", ontoggle: () => { if (box.open && box.children.length === 1) box.append(body(problem, index, chain, i)); } },
    el("summary", {}, el("span", { class: `verdict v${chain[OUTCOME]}` }, `${VERDICT[verdict]} ${verdict}`),
      el("span", { class: "who" }, swatch(index.arms[chain[ARM]].series), ` ${index.arms[chain[ARM]].name}`, el("small", {}, ` chain ${chain[CHAIN]}${several ? `, seed ${chain[SEED]}` : ""}`)),
      el("code", { class: "answer" }, answer.replace(/\s+/g, " ")),
      el("span", { class: "costs" }, `${last[TOKENS].toLocaleString("en")} of ${short(chain[LIMIT])} tokens · ${amount(last[READS])} reads · peak ${amount(last[PEAK])}`)));
  return box;
}

function body(problem, index, chain, i) {
  const long = problem.answers.some((answer) => answer.includes("\n"));
  const cell = (text) => el("td", { class: "number" }, text);
  const head = ["cut at", "KV reads", "peak KV", long ? "" : "answer", "verdict"].filter(Boolean);
  const cuts = el("table", { class: "cuts" }, el("thead", {}, el("tr", {}, head.map((title, n) => el("th", { scope: "col", class: n < 3 ? "number" : "" }, title)))),
    el("tbody", {}, chain[CUTS].map((cut, n) => el("tr", {}, cell(`${cut[TOKENS].toLocaleString("en")}${n === chain[CUTS].length - 1 ? " (end)" : ""}`),
      cell(amount(cut[READS])), cell(amount(cut[PEAK])), !long && el("td", {}, cut[ANSWER] == null ? "–" : problem.answers[cut[ANSWER]]),
      el("td", {}, cut[ANSWER] == null ? "no answer yet" : cut[CORRECT] ? "right" : "wrong")))));
  const text = el("pre", { class: "text", tabindex: 0, "aria-label": "Text of the chain" }, "unpacking …");
  const place = `texts-${index.problems.indexOf(problem)}`;
  if (index.limit === 0) text.textContent = "left out";
  else unpack(place).then((texts) => text.replaceChildren(...marked(texts[i], chain)), (error) => { text.textContent = `cannot be unpacked (${error.message})`; });
  return el("div", { class: "body" }, el("p", { class: "count" }, `prompt of ${plural(chain[PROMPT], "token")}, then at most ${short(chain[LIMIT])}; ${{ stop: "ended by itself", length: "cut off there" }[chain[FINISH]] ?? chain[FINISH]}`), el("div", { class: "scroll" }, cuts), text);
}

// The text with its thinking set apart, and a mark where each shorter L would cut it. Positions count code points.
function marked(text, chain) {
  if (Array.isArray(text)) return [el("span", { class: "thinking" }, text[0]), el("span", { class: "cut" }, `${text[1].toLocaleString("en")} characters left out`), ...parts(text[2], 0, [])];
  return parts(text, 0, chain[CUTS].slice(0, -1).map((cut) => [cut[CHARS], `${cut[TOKENS]} tokens`]));
}

function parts(text, start, marks) {
  const letters = Array.from(text), end = text.lastIndexOf("</think>");
  const thought = end < 0 ? letters.length : Array.from(text.slice(0, end + 8)).length;
  const stops = [...marks, [thought, ""], [letters.length, ""]].sort((a, b) => a[0] - b[0]);
  const nodes = [];
  for (const [stop, label] of stops) {
    if (stop > start) nodes.push(el("span", { class: start < thought ? "thinking" : "said" }, letters.slice(start, stop).join("")));
    if (label) nodes.push(el("span", { class: "cut" }, label));
    start = Math.max(start, stop);
  }
  return nodes;
}
