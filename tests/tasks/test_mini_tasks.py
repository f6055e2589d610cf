"""The three generators against solvers that read nothing but the problem's text."""

import re
from random import Random

import pytest

from hyperscale.mini.benchmarks import GENERATORS, LEVEL_COUNT
from hyperscale.mini.problems import aime, gpqa, lcb
from hyperscale.mini.vocab import STEPS, decode
from hyperscale.scoring import graders

KINDS = tuple(GENERATORS)


def problems(kind, count, seed=0):
    """``count`` problems of each level."""
    rng = Random(f"{kind}-{seed}")
    return [GENERATORS[kind](rng, level) for level in range(1, LEVEL_COUNT + 1) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_is_a_function_of_its_seed_and_level(kind):
    assert problems(kind, 3, seed=1) == problems(kind, 3, seed=1)
    assert problems(kind, 3, seed=1) != problems(kind, 3, seed=2)
    levels = {GENERATORS[kind](Random(i), None).level for i in range(60)}
    assert levels == set(range(1, LEVEL_COUNT + 1))
    lengths = [len(d.chain) for d in problems(kind, 30)]
    means = [sum(lengths[i : i + 30]) / 30 for i in range(0, 150, 30)]
    assert means == sorted(means)  # a higher level is a longer chain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(60)
def test_drawing_never_hangs(kind):
    for seed in range(2000):
        assert GENERATORS[kind](Random(seed), 1).answer


# --- aime ---


def solve_recurrence(prompt):
    m, lag, k = map(int, re.match(r"f\(n\)=(\d)\*f\(n-1\)\+(\d)\*f\(n//(\d)\) mod 1000 with", prompt).groups())
    overrides = {int(n): int(value) for n, value in re.findall(r" f\( n(\d+)\)=(\d{3})", prompt)}
    last = int(re.search(r"Find f\( n(\d+)\)\.$", prompt)[1])
    f = {}
    for n in range(last + 1):
        f[n] = overrides[n] if n in overrides else (m * f[n - 1] + lag * f[n // k]) % 1000
    return f, overrides, (m, lag, k), last


def chain_values(chain):
    return {int(n): int(value) for n, value in re.findall(r"^ n(\d+).*(\d{3})$", chain, re.MULTILINE)}


def test_aime_without_slips_computes_the_answer(monkeypatch):
    monkeypatch.setattr(aime, "SLIPS", 0.0)
    for problem in problems("aime", 60):
        f, _, _, last = solve_recurrence(decode(problem.prompt))
        assert chain_values(decode(problem.chain)) == {n: f[n] for n in range(1, last + 1)}
        assert problem.answer == str(f[last])
        grader = graders.get("integer")
        answer = grader.extract(decode(problem.ids()[0]))
        assert grader.correct(answer, problem.answer)


def test_aime_slips_change_one_digit_and_never_the_answer():
    slips = lines = wrong = 0
    for problem in problems("aime", 200):
        f, overrides, (m, lag, k), last = solve_recurrence(decode(problem.prompt))
        assert problem.answer == str(f[last])
        values = chain_values(decode(problem.chain)) | {0: overrides[0]}
        assert sorted(values) == list(range(last + 1))
        for n in range(1, last + 1):
            if n in overrides:
                assert values[n] == overrides[n]
                continue
            lines += 1
            expected = (m * values[n - 1] + lag * values[n // k]) % 1000
            differing = sum(a != b for a, b in zip(f"{expected:03}", f"{values[n]:03}", strict=True))
            assert differing <= 1
            slips += differing
        reply = re.search(r"boxed\{(\d+)\}", decode(problem.reply))[1]
        assert int(reply) == values[last]  # the reply says what the chain found
        wrong += int(reply) != f[last]
    assert 0.7 * aime.SLIPS < slips / lines < 1.3 * aime.SLIPS
    assert (wrong > 0) == (aime.SLIPS > 0)


# --- gpqa ---


def parse_graph(prompt):
    facts, start, options = re.fullmatch(r"Edges:(.*)\. Start n(\d+)\. Which can be reached\?(.*)", prompt).groups()
    edges = {}
    for fact in facts.split(","):
        source, targets = fact.split(":")
        assert source not in edges
        edges[source.strip()] = targets.split()
    return edges, f"n{start}", dict(re.findall(r" ([A-D])\) (n\d+)", options))


def reachable(edges, start):
    nodes, frontier = {start}, [start]
    while frontier:
        frontier = [n for node in frontier for n in edges.get(node, ()) if n not in nodes and not nodes.add(n)]
    return nodes


def test_gpqa_has_exactly_one_reachable_option():
    for problem in problems("gpqa", 60):
        edges, start, options = parse_graph(decode(problem.prompt))
        assert sorted(options) == list("ABCD")
        assert len(set(options.values())) == 4
        assert start not in options.values()
        nodes = reachable(edges, start)
        assert [letter for letter, node in options.items() if node in nodes] == [problem.answer]
        sizes = gpqa.LEVELS[problem.level - 1]
        assert sizes[0] <= len(nodes) <= sizes[1]
        assert graders.get("choice").extract(decode(problem.ids()[0])) == problem.answer


def test_gpqa_answers_are_spread_over_the_letters():
    letters = [d.answer for d in problems("gpqa", 60)]
    assert all(45 <= letters.count(letter) <= 105 for letter in "ABCD")


def test_gpqa_chain_is_a_correct_search():
    for problem in problems("gpqa", 30):
        edges, start, options = parse_graph(decode(problem.prompt))
        goal = options[problem.answer]
        met, open_nodes = {start}, [start]
        lines = decode(problem.chain).strip("\n").split("\n")
        for i, line in enumerate(lines):
            node, text = re.match(r" (n\d+):(.*)", line).groups()
            assert node in open_nodes[: gpqa.BREADTH]  # breadth first, loosely
            open_nodes.remove(node)
            successors = re.findall(r" (n\d+)(!?)", re.split(r"[|=]", text)[0])
            children = edges.get(node, [])
            assert [child for child, _ in successors] == children[: len(successors)]
            for child, mark in successors:
                assert (mark == "!") == (child in met)
                if not mark:
                    met.add(child)
                    open_nodes.append(child)
            if i + 1 < len(lines):
                assert goal not in met
                assert len(successors) == len(children)
                assert re.findall(r"n\d+", text.split("|")[1]) == open_nodes
        assert goal in met


# --- lcb ---

EXPRESSIONS = {name: eval("lambda x: " + "".join(pieces)) for name, pieces in STEPS.items()}


def test_every_step_is_its_python_expression():
    rng = Random(0)
    for length in [*range(1, 24), *range(1, 24), 100]:
        x = rng.choices(range(10), k=length)
        for name, function in lcb.FUNCTIONS.items():
            assert list(function(tuple(x))) == list(EXPRESSIONS[name](x)), name


def parse_examples(prompt):
    names, examples = re.fullmatch(r"Find two steps of((?: \w+)+):(.*)\.", prompt).groups()
    pairs = [[list(map(int, side)) for side in example.split(">")] for example in examples.split(",")]
    return names.split(), pairs


def test_lcb_has_exactly_one_pair_of_steps():
    for problem in problems("lcb", 25):
        names, examples = parse_examples(decode(problem.prompt))
        low, high = lcb.LEVELS[problem.level - 1]
        assert low <= len(names) == len(set(names)) <= high
        assert len(examples) == 3
        fitting = [
            (a, b) for a in names for b in names if all(EXPRESSIONS[b](EXPRESSIONS[a](x)) == y for x, y in examples)
        ]
        assert [" ".join(pair) for pair in fitting] == [problem.answer]


def test_lcb_chain_tries_each_pair_once_and_ends_at_the_right_one():
    for problem in problems("lcb", 25):
        names, examples = parse_examples(decode(problem.prompt))
        (x, y), *further = examples
        lines = [re.match(r"((?: [a-z]{3})+)=(\d+)(.*)", ln).groups() for ln in decode(problem.chain).split("\n")[1:-1]]
        table, tries = lines[: len(names)], lines[len(names) :]
        assert sorted(name.strip() for name, *_ in table) == sorted(names)
        for name, result, _ in table:
            assert list(map(int, result)) == EXPRESSIONS[name.strip()](x)
        pairs = [tuple(steps.split()) for steps, *_ in tries]
        assert len(set(pairs)) == len(pairs)
        assert " ".join(pairs[-1]) == problem.answer
        for (a, b), (_, result, end) in zip(pairs, tries, strict=True):
            output = EXPRESSIONS[b](EXPRESSIONS[a](x))
            count, *checks = end.split(">")
            assert list(map(int, result)) == output
            assert int(count) == sum(p == q for p, q in zip(output, y, strict=True))
            assert bool(checks) == (output == y)  # further examples are looked at only after full agreement
            for check, (other, target) in zip(checks, further, strict=False):
                first, last, agreeing = re.match(r"(\d+)=(\d+) (\d)$", check).groups()
                assert list(map(int, first)) == EXPRESSIONS[a](other)
                assert list(map(int, last)) == EXPRESSIONS[b](EXPRESSIONS[a](other))
                assert int(agreeing) == sum(p == q for p, q in zip(map(int, last), target, strict=True))


def test_lcb_replies_pass_the_hidden_tests_and_wrong_ones_fail():
    grader = graders.get("code")
    examples = problems("lcb", 8)
    programs = [grader.extract(decode(d.ids()[0])) for d in examples]
    assert None not in programs
    assert (
        grader.correct_many([(program, d.tests) for program, d in zip(programs, examples, strict=True)]) == [True] * 40
    )
    verdicts = grader.correct_many(
        [(program, d.tests) for program, d in zip(programs, examples[1:] + examples[:1], strict=True)]
    )
    assert sum(verdicts) < 8
    lengths = {len(test["input"]) for d in examples for test in d.tests}
    assert len(lengths) > 3  # other lengths than the examples'
