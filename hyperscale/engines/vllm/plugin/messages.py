"""What scheduler and workers tell each other through the KV connector, once a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata, KVConnectorWorkerMetadata

from hyperscale.engines.vllm.protocol import Grant, Ran


@dataclass
class Grants(KVConnectorMetadata):
    """Scheduler to workers, before a step.

    Attributes:
        grants: Requests whose superblocks have changed.
        gone: Requests that hold nothing any more.
        scheduled: Request to (generation, tokens of this step).
    """

    grants: list[Grant]
    gone: list[str]
    scheduled: dict[str, tuple[int, int]] = field(default_factory=dict)


class Report(KVConnectorWorkerMetadata):
    """Workers to scheduler, after a step.

    On a GPU the step may still be running when vLLM asks for it; then it waits where it is read or pickled, which is
    after vLLM has waited for the step's tokens.
    """

    def __init__(self, ran: Mapping[str, Ran] | Callable[[], Mapping[str, Ran]]) -> None:
        """Take what ran, or the function that waits for it."""
        self._ran = ran

    @property
    def ran(self) -> Mapping[str, Ran]:
        """What each request did."""
        if callable(self._ran):
            self._ran = self._ran()
        return self._ran

    def __reduce__(self) -> tuple[type["Report"], tuple[dict[str, Ran]]]:
        """Pickle what ran, never how to wait for it."""
        return Report, (dict(self.ran),)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> "Report":
        """One report of two tensor-parallel ranks: the most pages, and the entries of both."""
        assert isinstance(other, Report)
        merged = {}
        for request, mine in self.ran.items():
            theirs = other.ran[request]
            assert (mine.generation, mine.covered) == (theirs.generation, theirs.covered), "ranks out of step"
            lives = tuple(a + b for a, b in zip(mine.lives, theirs.lives, strict=True))
            merged[request] = Ran(mine.generation, mine.covered, max(mine.pages, theirs.pages), lives)
        return Report(merged)
