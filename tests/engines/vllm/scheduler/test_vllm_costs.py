"""What a request's costs are told as, report by report: reads of its prompt."""

import random

from hyperscale.engines.vllm.scheduler.costs import RequestCosts

LISTS = 4


def parts(reads, rng):
    """A prompt's reads, a number a position, as reports of chunks tell them."""
    first = 0
    while first < len(reads):
        last = rng.randint(first + 1, len(reads))
        yield first, last, sum(reads[first:last])
        first = last


def test_reads_of_a_prompt_count_once_whatever_is_computed_again():
    rng = random.Random(0)
    for _ in range(200):
        reads = [rng.randint(LISTS, 99) for _ in range(rng.randint(1, 30))]
        costs = RequestCosts(len(reads), LISTS)
        for _ in range(rng.randint(0, 3)):  # preempted on the way, to begin anew in chunks of other sizes
            for part in list(parts(reads, rng))[:-1]:
                costs.record_prompt(*part)
                costs.record_prompt(*part)  # vLLM hands over each report twice
                if rng.random() < 0.3:
                    break
        costs.record(len(reads), [LISTS])
        assert "prefill_reads" not in costs.summarize(1)  # before it is known in whole
        whole = list(parts(reads, rng))
        for part in whole:
            costs.record_prompt(*part)
        assert costs.summarize(1)["prefill_reads"] == sum(reads) / LISTS
        for part in whole:  # computed again after a preemption among decode steps
            costs.record_prompt(*part)
        assert costs.summarize(1)["prefill_reads"] == sum(reads) / LISTS
