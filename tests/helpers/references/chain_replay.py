"""Greedy chains of another engine, held against the torch engine token by token, also where the two part.

The torch engine is fed with the tokens that the other one chose (`TorchEngine.score`). So a chain that parted from the
torch engine's own at a near tie is compared to its end all the same: each of its tokens has to be the most probable one
there, but for a near tie, and its costs and log-probabilities have to be those of the fed chain.

What is left are decisions of a method that rounding turned, between two entries or pages that nearly tie. Such a chain
goes on with another cache, and may be excused, if there are few and the slow reference finds that close a decision
before the place where the chain departs.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from dense_reference import dms, forward
from method_matrix import ROWS

from hyperscale.engines.base import Chain
from hyperscale.engines.detokenize import end_ids
from hyperscale.engines.steering import TokenSteering
from hyperscale.engines.vocabulary import Vocabulary
from hyperscale.utils import counter_rng

#: Nats; how far the most probable token may be above the one that the other engine chose. Rounding in float32 moves
#: log-probabilities by a hundredth of it.
NEAR_TIE = 1e-3
#: Nats, of the whole chain.
LOGPROB = 1e-2
#: A decision of a method closer than this, relative to the numbers compared, may fall either way by rounding alone.
CLOSE = 1e-4
#: Methods whose counts depend on which way a decision falls. Those of all others follow from lengths.
DECIDE_COUNTS = ("dms", "dmc", "quest")


@dataclass(frozen=True)
class Departure:
    """Where a chain is no longer what the reference makes of its tokens.

    Attributes:
        problem: Of the chain.
        tokens: Number of the chain's first tokens that may still be right.
        what: What differs, in words.
        in_costs: Whether reads, peaks or counts of prefill do, which no decision of the method could explain.
    """

    problem: str
    tokens: int
    what: str
    in_costs: bool = False

    def __str__(self):
        return f"{self.problem} after {self.tokens} tokens: {self.what}"


@dataclass(frozen=True)
class Replayed:
    """What the reference makes of a sequence.

    Attributes:
        chain: The fed chain; it goes on behind the sequence, to L.
        gaps: For each token, nats by which the most probable one is above it.
        logprobs: Sums of the log-probabilities of the first tokens, from none to all.
    """

    chain: Chain
    gaps: tuple[float, ...]
    logprobs: tuple[float, ...]


def replay(engine, items):
    """Feed sequences to the torch engine.

    Args:
        engine: With the method and the settings that the sequences are to be held against, in float32.
        items: By name (request, tokens): the request's prompt, problem and L count.

    Returns: By name what the reference makes of each, with costs at every length.
    """
    vocabulary = Vocabulary(engine.tokenizer, engine.model.config.vocab_size, end_ids(engine.model, engine.tokenizer))
    scored, forced = {name: [] for name in items}, {}
    for name, (request, tokens) in items.items():
        # Fixed budgets depend on L, so a chain that ended early is fed to L, with anything.
        ids = (*tokens, *tokens[-1:] * (request.L - len(tokens)))
        forced[name] = replace(request, forced_ids=ids, cuts=tuple(range(1, request.L)))
    names = {id(request): name for name, request in forced.items()}

    def observe(chains, logits):
        # Of tokens alone, as where they are drawn: an output layer may have more rows.
        logprobs = vocabulary.drawable(logits).double().log_softmax(-1)
        for (request, position), row in zip(chains, logprobs, strict=True):
            own = float(row[request.forced_ids[position]])
            scored[names[id(request)]].append((float(row.max()) - own, own))

    fed = {(chain.problem, chain.token_ids): chain for chain in engine.score(list(forced.values()), observe)}
    found = {}
    for name, request in forced.items():
        gaps, logprobs = zip(*scored[name][: len(items[name][1])], strict=True)
        sums = tuple(accumulate(logprobs, initial=0.0))
        found[name] = Replayed(fed[request.problem, request.forced_ids], gaps, sums)
    return found


def find_departures(request, found, replayed, inserted=0):
    """Where a chain is not what its tokens give in the reference; empty if it is that throughout.

    Args:
        request: What was asked for.
        found: The other engine's chain.
        replayed: What the reference makes of its tokens.
        inserted: Tokens of the chain that were not drawn, so that they need not be probable.
    """
    trace, fed = found.trace, replayed.chain.trace
    departures = _find_strange_tokens(request.problem, replayed.gaps, inserted)

    def check(field, one, other, before, at):
        if one != other:
            what = f"{field} {one} for {other}, {at}"
            departures.append(Departure(request.problem, before, what, in_costs=True))

    for field in ("prefill_kv", "prefill_reads"):
        check(field, getattr(trace, field), getattr(fed, field), 0, "of the prompt")
    before = 0
    for index, length in enumerate(trace.lengths):
        at = fed.lengths.index(length)
        for field in ("kv_reads", "peak_kv", "chars"):
            check(field, getattr(trace, field)[index], getattr(fed, field)[at], before, f"at {length} tokens")
        logprob = replayed.logprobs[length]
        if not inserted and abs(trace.logprobs[index] - logprob) > LOGPROB:
            what = f"log-probability {trace.logprobs[index]:.4f} for {logprob:.4f}, at {length} tokens"
            departures.append(Departure(request.problem, before, what))
        before = length
    check("text", found.text, replayed.chain.text[: len(found.text)], 0, "of the same tokens")
    return departures


def _find_strange_tokens(problem, gaps, inserted):
    """The first token that is less probable than another, if there are more of them than were inserted."""
    strange = [index for index, gap in enumerate(gaps) if gap > NEAR_TIE]
    if len(strange) <= inserted:
        return []
    what = f"the next token is {gaps[strange[0]]:.2g} nats below another"
    if inserted:
        what += f", and of all {len(strange)} are, for {inserted} that were inserted"
    return [Departure(problem, strange[0], what)]


def closeness(engine, request, tokens):
    """The closest decision of the method while it processes a prompt and some tokens; inf if it makes none.

    In multiples of what rounding may turn: up to 1 it may fall either way.
    """
    model, method = engine.model, engine.method
    ids, prompt = [*request.prompt_ids, *tokens], len(request.prompt_ids)
    with torch.inference_mode():
        if method.name == "dms":  # logits, which are rounded as those of tokens are
            margins = []
            forward(model, ids, dms(model, margins))
            return min(margins) / NEAR_TIE
        if method.name not in ROWS:
            return float("inf")
        key = counter_rng.key(0, request.problem, request.chain)
        shape = (model.config.num_hidden_layers, model.config.num_key_value_heads)
        rule = ROWS[method.name].rule(method, prompt, request.L, *shape, key)
        rule.smallest = lambda scores: _smallest(rule, scores)
        rule.run(model, ids, prompt)
    return min(rule.margins, default=float("inf")) / CLOSE


def _smallest(rule, scores):
    """As `ReferenceRule.smallest`, with margins relative to the two numbers alone: most weights are far smaller."""
    ranked = sorted(range(len(scores)), key=lambda index: scores[index])
    if len(scores) > 1 and scores[ranked[1]]:
        rule.margins.append((scores[ranked[1]] - scores[ranked[0]]) / abs(scores[ranked[1]]))
    return ranked[0]


def hold(engine, requests, found, spared=0):
    """Hold greedy chains of another engine against the torch engine.

    Every token is the most probable one or nearly ties with it; reads, peaks and counts of the prompt are exact at each
    length, log-probabilities within `LOGPROB`; the chain ends at the first end of a sequence, or at L.

    Args:
        engine: The torch engine, with the method and the settings as they should be, in float32 on the CPU.
        requests: What both were asked.
        found: The other engine's chains, by problem.
        spared: So many chains may depart after a decision of the method that nearly ties. Up to there they are held all
            the same, and in their costs to the end, unless the method's decisions change these.
    """
    assert set(found) == {request.problem for request in requests}
    ends = end_ids(engine.model, engine.tokenizer)
    items = {}
    for request in requests:
        chain = found[request.problem]
        stops = [index for index, token in enumerate(chain.token_ids) if token in ends]
        assert stops == ([len(chain.token_ids) - 1] if chain.finish == "stop" else []), request.problem
        assert chain.finish == "stop" or len(chain.token_ids) == request.L, request.problem
        items[request.problem] = request, chain.token_ids
    replayed = replay(engine, items)
    departures = {
        request: find_departures(request, found[request.problem], replayed[request.problem]) for request in requests
    }
    _excuse(engine, {request: each for request, each in departures.items() if each}, found, spared)


def hold_steered(engine, requests, sampling, found, spared=0):
    """As `hold`, of greedy chains and their branches, in which tokens were inserted.

    No more tokens than were inserted may be less probable than others. Where words belong is not held: compare chains
    for that.
    """
    steering = TokenSteering(engine.tokenizer, sampling)
    # A method that counts on L is told that a branch may follow.
    longer = {request.problem: replace(request, L=request.L + steering.branch_tokens(request)) for request in requests}
    items = {}
    for request in requests:
        chain, asked = found[request.problem], longer[request.problem]
        items[request.problem, None] = asked, chain.token_ids
        for branch in chain.branches:
            items[request.problem, branch.at] = asked, (*chain.token_ids[: branch.at], *branch.token_ids)
    replayed = replay(engine, items)
    departures = {}
    for request in requests:
        chain, problem = found[request.problem], request.problem
        mine = find_departures(request, chain, replayed[problem, None], chain.trace.inserted[-1])
        for branch in chain.branches:
            fed = replayed[problem, branch.at]
            mine += _find_strange_tokens(problem, fed.gaps, branch.inserted)
            at = fed.chain.trace.lengths.index(branch.at + len(branch.token_ids))
            for field in ("kv_reads", "peak_kv"):
                one, other = getattr(branch, field), getattr(fed.chain.trace, field)[at]
                if one != other:
                    what = f"{field} {one} for {other} of the branch"
                    mine.append(Departure(problem, branch.at, what, in_costs=True))
        if mine:
            departures[longer[problem]] = mine
    _excuse(engine, departures, found, spared)


def _excuse(engine, departures, found, spared):
    """Let so many chains depart, if a decision of the method nearly ties before each of them does."""
    told = "; ".join(str(each) for mine in departures.values() for each in mine)
    if engine.method.name not in DECIDE_COUNTS:
        assert not any(each.in_costs for mine in departures.values() for each in mine), told
    assert len(departures) <= spared, told
    for request, mine in departures.items():
        first = min(mine, key=lambda departure: departure.tokens)
        # What departs between two lengths may have done so at any token.
        chain = found[request.problem]
        reach = next((length for length in chain.trace.lengths if length > first.tokens), len(chain.token_ids))
        least = closeness(engine, request, chain.token_ids[:reach])
        assert least <= 1, f"{first}, and before that no decision was closer than {least:.2g} times what rounding turns"
