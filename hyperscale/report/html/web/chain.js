// One problem with its chains, and a chain's text, which is unpacked when somebody opens it.

const VERDICT = { right: "✓", wrong: "✗", truncated: "✂", "no answer": "∅" };
const PAGE = 100; // problems or chains that are listed before somebody asks for more
const [ARM, SEED, CHAIN, LIMIT, OUTCOME, FINISH, PROMPT, THOUGHT, CUTS] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const [AT, TOKENS, READS, PEAK, CHARS, ANSWER, CORRECT, FORCED] = [0, 1, 2, 3, 4, 5, 6, 7];

// The first of many, and a button for more.
function listed(items, draw) {
  const rest = el("div", { class: "chains" });
  const more = (from) => {
    rest.append(...items.slice(from, from + PAGE).map(draw));
    if (from + PAGE < items.length)
      rest.append(
        el(
          "button",
          {
            type: "button",
            class: "more",
            onclick: (event) => {
              event.currentTarget.remove();
              more(from + PAGE);
            },
          },
          `${items.length - from - PAGE} more`,
        ),
      );
  };
  more(0);
  return rest;
}

// What a problem asks.
const posed = (problem) =>
  [
    el("h3", {}, `${problem.task} / ${problem.id}`),
    problem.question &&
      el(
        "details",
        { class: "question", open: problem.question.length < 800 },
        el("summary", {}, "Question"),
        el("pre", {}, problem.question),
      ),
    problem.target && el("p", {}, "Expected answer: ", el("code", {}, problem.target)),
  ].filter(Boolean);

// An arm's chain at some L: what it gives when it is cut there, or null if that is not known.
function cutAt(chain, L, arm) {
  if (!arm.length_invariant && chain[LIMIT] !== L) return null; // a run with that L would have given another chain
  const last = chain[CUTS].at(-1);
  if (last[AT] <= L && chain[LIMIT] >= L) return last; // it ended before, or L is its own
  return chain[CUTS].find((cut) => cut[AT] === L) ?? null;
}

function full(problem, index, wanted) {
  const chains = problem.chains.map((chain, i) => ({ chain, i })).filter(({ chain }) => wanted(chain));
  return [
    ...posed(problem),
    el(
      "p",
      { class: "tallies" },
      problem.arms.map((arm) => tally(arm, index)),
    ),
    el("p", { class: "count" }, `${chains.length} of ${plural(problem.chains.length, "chain")} shown`),
    listed(chains, ({ chain, i }) => row(problem, index, chain, i)),
  ];
}

// A chain, at its full length or as it is when cut somewhere.
function row(problem, index, chain, i, last = chain[CUTS].at(-1)) {
  const whole = last === chain[CUTS].at(-1),
    cutOff = last[ANSWER] == null ? 2 : last[CORRECT] ? 0 : 1, // places in the verdicts
    outcome = whole ? chain[OUTCOME] : cutOff,
    verdict = index.verdicts[outcome],
    answer = last[ANSWER] == null ? "–" : problem.answers[last[ANSWER]];
  const several = new Set(problem.chains.map((each) => each[SEED])).size > 1;
  const box = el(
    "details",
    {
      class: "chain",
      ontoggle: () => {
        if (box.open && box.children.length === 1) box.append(body(problem, index, chain, i, last));
      },
    },
    el(
      "summary",
      {},
      el("span", { class: `verdict v${outcome}` }, `${VERDICT[verdict]} ${verdict}`),
      el(
        "span",
        { class: "who" },
        swatch(index.arms[chain[ARM]].series),
        ` ${index.arms[chain[ARM]].name}`,
        el("small", {}, ` chain ${chain[CHAIN]}${several ? `, seed ${chain[SEED]}` : ""}`),
      ),
      el("code", { class: "answer" }, answer.replace(/\s+/g, " ")),
      el(
        "span",
        { class: "costs" },
        `${last[TOKENS].toLocaleString("en")} of ${short(whole ? chain[LIMIT] : last[AT])} tokens · ${amount(last[READS])} reads · peak ${amount(last[PEAK])}`,
      ),
    ),
  );
  return box;
}

function body(problem, index, chain, i, last) {
  const long = problem.answers.some((answer) => answer.includes("\n"));
  const cell = (text) => el("td", { class: "number" }, text);
  const head = ["cut at", "KV reads", "peak KV", long ? "" : "answer", "verdict"].filter(Boolean);
  const cuts = el(
    "table",
    { class: "cuts" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        head.map((title, n) => el("th", { scope: "col", class: n < 3 ? "number" : "" }, title)),
      ),
    ),
    el(
      "tbody",
      {},
      chain[CUTS].map((cut, n) =>
        el(
          "tr",
          {},
          cell(
            `${cut[AT].toLocaleString("en")}${cut[FORCED] != null ? " + forced answer" : n === chain[CUTS].length - 1 ? " (end)" : ""}`,
          ),
          cell(amount(cut[READS])),
          cell(amount(cut[PEAK])),
          !long && el("td", {}, cut[ANSWER] == null ? "–" : problem.answers[cut[ANSWER]]),
          el("td", {}, cut[ANSWER] == null ? "no answer yet" : cut[CORRECT] ? "right" : "wrong"),
        ),
      ),
    ),
  );
  const text = el("pre", { class: "text", tabindex: 0, "aria-label": "Text of the chain" }, "loading …");
  if (index.limit === 0) text.textContent = "left out";
  else
    textsOf(index, index.problems.indexOf(problem)).then(
      (texts) => {
        const cuts = chain[CUTS].slice(0, -1);
        text.replaceChildren(...marked(texts[i], chain[THOUGHT][0], cuts), ...forced(texts, chain));
      },
      (error) => {
        text.textContent = `cannot be shown (${error.message})`;
      },
    );
  return el(
    "div",
    { class: "body" },
    el(
      "p",
      { class: "count" },
      `prompt of ${plural(chain[PROMPT], "token")}, then at most ${short(chain[LIMIT])}; ${{ stop: "ended by itself", length: "cut off there" }[chain[FINISH]] ?? chain[FINISH]}`,
    ),
    el("div", { class: "scroll" }, cuts),
    failure(problem, last),
    text,
  );
}

// Why a program is wrong: the first test that it fails.
const STATUS = {
  wrong: "another output",
  error: "an exception, or no such function",
  timeout: "no end within the time limit",
  memory: "the memory limit was reached",
  output: "the output limit was reached",
  killed: "ended by a signal",
};
function failure(problem, { [ANSWER]: answer }) {
  const found = answer == null ? null : problem.failures[answer];
  if (!found) return null;
  const [number, total, input, expected, got, status] = found;
  const line = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  return el(
    "div",
    { class: "failed", role: "note" },
    el("b", {}, `Fails test ${number} of ${total}: ${STATUS[status] ?? status}`),
    el(
      "dl",
      {},
      line("input", el("code", {}, input)),
      line("expected", el("code", {}, expected)),
      line("got", got == null ? STATUS[status] ?? status : el("code", {}, got)),
    ),
  );
}

// All texts of a problem's chains, from the page or from the folder beside it.
const textsOf = async (index, place) =>
  unpack(index.beside ? await loadBlock(index.beside, place) : byId(`texts-${place}`).textContent);

// A page on a disk may load scripts but read no files: a file of texts is a script that hands over its block.
const handed = new Map(); // files under way
function loadBlock({ folder, files }, place) {
  const file = files[place];
  if (!handed.has(file))
    handed.set(
      file,
      new Promise((resolve, reject) => {
        const script = document.createElement("script");
        const end = (error) => {
          script.remove();
          handed.delete(file);
          if (error) reject(new Error(`${folder}/${file}.js ${error}: this page needs the folder ${folder} beside it`));
        };
        window.hyperscaleTexts ??= (name, block) => waiting.get(name)?.(block);
        waiting.set(file, (block) => {
          waiting.delete(file);
          resolve(block);
        });
        script.onload = () => end(waiting.has(file) && "holds other texts");
        script.onerror = () => end("cannot be loaded");
        script.src = `${encodeURIComponent(folder)}/${file}.js`;
        document.head.append(script);
      }),
    );
  return handed.get(file);
}
const waiting = new Map(); // file to the function that takes its block

// The text with its thinking set apart, which is its first characters, and a mark where each shorter L would cut it.
// Positions count code points.
function marked(text, thought, cuts) {
  if (Array.isArray(text)) {
    const head = Array.from(text[0]).length;
    return [
      ...parts(text[0], thought, []),
      el("span", { class: "cut" }, `${text[1].toLocaleString("en")} characters left out`),
      ...parts(text[2], Math.max(0, thought - head - text[1]), []),
    ];
  }
  return parts(
    text,
    thought,
    cuts.map((cut) => [cut[CHARS], `${cut[AT]} tokens`]),
  );
}

// The answers that were forced where the chain was cut.
const forced = (texts, chain) =>
  chain[CUTS].filter((cut) => cut[FORCED] != null).flatMap((cut, n) => [
    el("span", { class: "cut" }, `forced answer after ${cut[AT]} tokens`),
    ...marked(texts[cut[FORCED]], chain[THOUGHT][n + 1], []),
  ]);

function parts(text, thinking, marks) {
  const letters = Array.from(text),
    thought = Math.min(thinking, letters.length);
  const stops = [...marks, [thought, ""], [letters.length, ""]].sort((a, b) => a[0] - b[0]);
  const nodes = [];
  let start = 0;
  for (const [stop, label] of stops) {
    if (stop > start)
      nodes.push(el("span", { class: start < thought ? "thinking" : "said" }, letters.slice(start, stop).join("")));
    if (label) nodes.push(el("span", { class: "cut" }, label));
    start = Math.max(start, stop);
  }
  return nodes;
}
