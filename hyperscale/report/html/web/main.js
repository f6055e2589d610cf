// What the page is about, then its sections. A part that fails says so, and the others still show.

function drawSummary(node) {
  document.title = `${data.name} · hyperscale report`;
  const settings = (values) =>
    Object.entries(values)
      .filter(([, value]) => value != null)
      .map(([name, value]) =>
        el("div", {}, el("dt", {}, name), el("dd", {}, Array.isArray(value) ? value.join(", ") : String(value))),
      );
  const chains = data.runs.reduce((sum, run) => sum + run.chains, 0);
  const models = [...new Set(points.map((point) => point.model))];
  node.append(
    el(
      "p",
      {},
      el("strong", {}, data.name),
      `: ${models.join(", ")} on ${tasks.join(", ")}; ${names.join(", ")}; ${plural(chains, "chain")}.`,
    ),
    el(
      "details",
      {},
      el("summary", {}, data.runs.length > 1 ? `How the ${data.runs.length} runs were made` : "How the run was made"),
      data.runs.map((run) =>
        el(
          "div",
          {},
          data.runs.length > 1 && el("h3", {}, run.name),
          el("dl", {}, settings({ chains: run.chains, ...run.config, ...run.versions, ...run.hardware })),
          el("pre", { class: "command" }, commandOf(run)),
        ),
      ),
    ),
  );
}

// A sentence whose numbers stay whole where a line breaks: "52.1 % [29, 70]", "4-2K-8".
const whole = (sentence) =>
  sentence
    .split(/(\(?(?:[\d.]+ %(?: \[[^\]]*\])?|\[[^\]]*\]|\d+-\d+[KMG]?-[\d.]*\d+t?)[),.;:]*)/)
    .map((piece, i) => (i % 2 ? el("span", { class: "word" }, piece) : piece));

// What the numbers say, in words, before any of them.
function drawAnswer(section) {
  section.append(
    el(
      "p",
      { class: "help" },
      "From the numbers below and their 95 % intervals; costs are means per problem. ",
      "Intervals of a best count that it was chosen among many points, so they are wider than its own.",
    ),
    ...data.unfinished.map((note) => el("p", { class: "notice" }, `${note}.`)),
    ...data.answers.map(({ heading, sentences }) =>
      el("div", {}, el("h3", {}, heading), sentences.map((sentence) => el("p", {}, whole(sentence)))),
    ),
  );
}

const failed = (error) => {
  byId("failure").hidden = false;
  byId("failure").append(`A part of this page could not be shown (${error.message}). `);
};
for (const [id, draw] of [
  ["summary", drawSummary],
  ["answer", drawAnswer],
  ["frontiers", drawFrontiers],
  ["retained", drawRetained],
  ["chosen", drawChosen],
  ["margins", drawMargins],
  ["points", drawPoints],
  ["heads", drawHeads],
])
  Promise.resolve(byId(id)).then(draw).catch(failed);

// Problems and chains are unpacked once, for the sections that show them.
async function drawProblems() {
  if (!("DecompressionStream" in window)) {
    const text = "This browser cannot unpack the chains (it lacks DecompressionStream): use one from 2023 or later.";
    byId("chains").append(el("p", { class: "notice" }, text));
    return;
  }
  const index = await unpack(byId("index").textContent);
  for (const [id, draw] of [
    ["compare", drawCompare],
    ["chains", drawChains],
  ])
    try {
      draw(byId(id), index);
    } catch (error) {
      failed(error);
    }
}
drawProblems().catch(failed);
