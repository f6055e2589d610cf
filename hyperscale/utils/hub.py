"""The Hugging Face hub: whether it can be reached, and loading without its chatter."""

from collections.abc import Iterator
from contextlib import contextmanager

_PROBE_SECONDS = 3.0


def reachable() -> bool:
    """Whether the hub answers, whatever it answers; a few seconds at most."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=_PROBE_SECONDS):
            return True
    except HTTPError:
        return True
    except (OSError, ValueError):
        return False


@contextmanager
def quiet_hub(*, offline: bool) -> Iterator[None]:
    """Keep the hub's libraries from drawing bars and, offline, from trying again and again."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    bars = datasets.is_progress_bar_enabled()
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
        if bars:
            datasets.enable_progress_bars()
