"""Runs for the report, and a text that tries to break out of the page."""

from hyperscale.results.folder import Run

HOSTILE = "</script><script>hacked = 1</script><img src=x onerror='hacked = 1'>&lt;<!-- --> \u2028 \ud800 '\"`${x}"


def run(folder, samples, **config):
    return Run(folder, {"schema": 1, "config": {"model": "mini", **config}}, list(samples))
