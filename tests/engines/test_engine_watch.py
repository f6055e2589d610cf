"""Watching chains as they are decoded: every token is told of, and nothing changes."""

import dataclasses

import tiny

from hyperscale import methods
from hyperscale.engines.base import Request, Sampling
from hyperscale.engines.torch.engine import TorchEngine

REQUESTS = [Request("p", chain, (1, 2, 3, 4, 5), limit, (4, limit)) for chain, limit in ((0, 12), (1, 7), (2, 10))]


def engine():
    model = tiny.with_gates(tiny.model(eos=63))
    return TorchEngine(model, tiny.Characters(), methods.create("dms", cr=8.0), batch_size=2)


def plain(chain):
    return dataclasses.replace(chain, seconds=0.0)


def test_every_token_of_every_chain_is_told_of_and_nothing_changes():
    seen = {}

    def watch(progress):
        text = progress.text()
        seen.setdefault(progress.request.chain, []).append((progress.tokens, progress.entries, text))

    sampling = Sampling(temperature=1.5)
    watched = sorted(engine().generate(REQUESTS, sampling, watch), key=lambda chain: chain.chain)
    alone = sorted(engine().generate(REQUESTS, sampling), key=lambda chain: chain.chain)
    assert [plain(chain) for chain in watched] == [plain(chain) for chain in alone]
    assert len({chain.text for chain in watched}) == 3
    for chain in watched:
        steps = seen[chain.chain]
        assert [tokens for tokens, _, _ in steps] == list(range(1, len(chain.token_ids) + 1))
        assert max(entries for _, entries, _ in steps) == chain.trace.peak_kv[-1]
        assert sum(entries for _, entries, _ in steps[1:]) == chain.trace.kv_reads[-1]
        assert steps[-1][2] == chain.text
        assert all(chain.text.startswith(text) for _, _, text in steps)
    assert max(entries for steps in seen.values() for _, entries, _ in steps) < 5 + 11  # the gates did evict
