"""Generates problems of the GPQA shape: the one of four nodes that can be reached in a directed graph, as a letter.

Exactly one option is reachable. The chain is a breadth-first search that draws its next node from the oldest open
ones. It lists the node's successors, those met before marked with ``!``, then restates the open list; at the first
successor that is an option it writes ``=`` and ends. Successors are looked up in the prompt and "met before" in the
whole chain, both far back; how soon the search ends is luck, so width helps.
"""

from random import Random

from hyperscale.mini.problems.worked_problem import WorkedProblem
from hyperscale.mini.vocab import ID, NODE, NODES

#: Reachable nodes at each level.
LEVELS = ((26, 40), (46, 62), (68, 84), (90, 104), (108, 118))
#: The next node to expand is one of this many that have been open longest.
BREADTH = 8
_EDGES, _START, _WHICH = (ID[piece] for piece in ("Edges:", ". Start", ". Which can be reached?"))
_OPTION = [ID[f" {letter})"] for letter in "ABCD"]
_LETTER = [ID[f" {letter}"] for letter in "ABCD"]
_COLON, _BAR, _BANG, _FOUND, _COMMA, _NL = (ID[piece] for piece in (":", "|", "!", "=", ",", "\n"))


def _graph(rng: Random, size: int) -> tuple[dict[int, list[int]], list[int], list[int], list[int]]:
    """Successors, reachable nodes in order of depth, unreachable nodes with a fact about them, and all sources."""
    names = rng.sample(range(NODES), min(NODES, size + max(6, size // 6)))
    inside, outside = names[:size], names[size:]
    edges: dict[int, list[int]] = {name: [] for name in names}
    depth = {inside[0]: 0}
    for i in range(1, size):
        # Parents among the latest few give depth, uniformly chosen ones give a wide open list.
        parent = inside[rng.randrange(max(0, i - 6), i) if rng.random() < 0.05 else rng.randrange(i)]
        edges[parent].append(inside[i])
        depth[inside[i]] = depth[parent] + 1
    for _ in range(size // 5):
        a, b = rng.sample(inside, 2)
        if b not in edges[a]:
            edges[a].append(b)
    for i, name in enumerate(outside):
        # Unreachable nodes point at each other and into the reachable part, never the other way.
        edges[outside[(i + 1) % len(outside)]].append(name)
        if rng.random() < 0.3:
            edges[name].append(rng.choice(inside))
    return edges, sorted(inside, key=depth.__getitem__), outside, names


def generate(rng: Random, level: int | None = None) -> WorkedProblem:
    """One problem and its chain; a random level if none is given."""
    level = level or rng.randint(1, len(LEVELS))
    size = rng.randint(*LEVELS[level - 1])
    edges, by_depth, outside, _ = _graph(rng, size)
    start, target = by_depth[0], rng.choice(by_depth[3 * size // 4 :])
    options = [target, *rng.sample(outside, 3)]
    rng.shuffle(options)
    sources = [node for node, targets in edges.items() if targets]
    rng.shuffle(sources)
    prompt = [_EDGES]
    for node in sources:
        rng.shuffle(edges[node])
        prompt += [NODE[node], _COLON, *(NODE[n] for n in edges[node]), _COMMA]
    prompt[-1] = _START
    prompt += [NODE[start], _WHICH]
    for mark, node in zip(_OPTION, options, strict=True):
        prompt += [mark, NODE[node]]

    # Breadth-first search: `open_nodes` are met and not expanded, the oldest first.
    met, open_nodes = {start}, [start]
    chain: list[int] = []
    while target not in met:
        node = open_nodes.pop(rng.randrange(min(BREADTH, len(open_nodes))))
        chain += [_NL, NODE[node], _COLON]
        for child in edges[node]:
            chain.append(NODE[child])
            if child in met:
                chain.append(_BANG)
                continue
            met.add(child)
            open_nodes.append(child)
            if child == target:
                break
        chain += [_FOUND] if target in met else [_BAR, *(NODE[n] for n in open_nodes)]
    chain.append(_NL)
    letter = options.index(target)
    return WorkedProblem(prompt, chain, [ID["Answer:"], _LETTER[letter]], "ABCD"[letter], level)
