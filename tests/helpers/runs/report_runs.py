"""Runs for the report, and a text that tries to break out of the page."""

from hyperscale.results.folder import Run

HOSTILE = "</script><script>hacked = 1</script><img src=x onerror='hacked = 1'>&lt;<!-- --> \u2028 '\"`${x}"


def run(folder, samples, vote=None, **config):
    return Run(folder, {"schema": 2, "config": {"model": "mini", **config}, "vote": vote}, list(samples))
