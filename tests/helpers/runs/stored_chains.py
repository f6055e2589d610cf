"""The chains that a run's folder holds, to be compared with another run's."""

from dataclasses import replace

from hyperscale import results


def without_seconds(sample):
    """The sample without what differs between two runs of the same configuration."""
    cuts = (cut if cut.forced is None else replace(cut, forced=replace(cut.forced, seconds=0.0)) for cut in sample.cuts)
    return replace(sample, seconds=0.0, cuts=tuple(cuts))


def stored_chains(folder):
    """Key to sample, without seconds."""
    (run,) = results.read(folder)
    return {sample.key: without_seconds(sample) for sample in run.samples}
