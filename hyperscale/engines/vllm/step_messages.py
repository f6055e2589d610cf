"""The two messages that vLLM's KV connector carries in every step: superblocks to the workers, their reports back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata, KVConnectorWorkerMetadata

from hyperscale.engines.vllm.protocol import DecodeColumns, DecodeReports, RequestReport, SuperblockUpdate


@dataclass
class StepInstructions(KVConnectorMetadata):
    """Scheduler to workers, before a step.

    Attributes:
        updates: Requests whose superblocks have changed.
        released_requests: Ids of requests that hold nothing any more.
        scheduled_tokens: Request id to (generation, tokens of this step).
    """

    updates: list[SuperblockUpdate]
    released_requests: list[str]
    scheduled_tokens: dict[str, tuple[int, int]] = field(default_factory=dict)


class StepReport(KVConnectorWorkerMetadata):
    """Workers to scheduler, after a step.

    On a GPU the step may still be running when vLLM asks for its report. The numbers are then waited for where they
    are read or pickled, which is after vLLM has waited for the step's tokens: no extra wait.
    """

    def __init__(self, requests: Mapping[str, RequestReport] | Callable[[], Mapping[str, RequestReport]]) -> None:
        """Take the reports by request id, or the function that waits for them."""
        self._requests = requests

    @property
    def requests(self) -> Mapping[str, RequestReport]:
        """What each request used."""
        if callable(self._requests):
            self._requests = self._requests()
        return self._requests

    @property
    def may_wait(self) -> bool:
        """Whether it can be booked later, together with others: nobody stops or shrinks in such a step."""
        return isinstance(self._requests, DecodeReports)

    def __reduce__(self) -> tuple[type["StepReport"], tuple[Mapping[str, RequestReport]]]:
        """Pickle the reports, never the function that waits for them: it holds a CUDA event of this process."""
        return StepReport, (self.requests,)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> "StepReport":
        """One report of two tensor-parallel ranks: the larger number of pages, and the entries of both."""
        assert isinstance(other, StepReport)
        if isinstance(mine := self.requests, DecodeReports) and isinstance(theirs := other.requests, DecodeReports):
            return StepReport(_aggregate_decodes(mine, theirs))
        reports = {}
        for request, a in self.requests.items():
            b = other.requests[request]
            assert (a.generation, a.computed_tokens) == (b.generation, b.computed_tokens), "ranks out of step"
            live_entries = tuple(x + y for x, y in zip(a.live_entries, b.live_entries, strict=True))
            read_entries = None
            if a.read_entries is not None and b.read_entries is not None:
                read_entries = tuple(x + y for x, y in zip(a.read_entries, b.read_entries, strict=True))
            prompt_part = None
            if a.prompt_part is not None and b.prompt_part is not None:
                prompt_part = (*a.prompt_part[:2], a.prompt_part[2] + b.prompt_part[2])
            reports[request] = RequestReport(
                a.generation, a.computed_tokens, max(a.pages, b.pages), live_entries, read_entries, prompt_part
            )
        return StepReport(reports)


def _aggregate_decodes(a: DecodeReports, b: DecodeReports) -> DecodeReports:
    assert (a.requests, a.generations, a.computed_tokens) == (b.requests, b.generations, b.computed_tokens), (
        "ranks out of step"
    )
    mine, theirs = a.columns, b.columns
    reads = None
    if mine.read_entries is not None and theirs.read_entries is not None:
        reads = tuple(map(sum, zip(mine.read_entries, theirs.read_entries, strict=True)))
    columns = DecodeColumns(
        tuple(map(max, zip(mine.pages, theirs.pages, strict=True))),
        tuple(map(sum, zip(mine.live_entries, theirs.live_entries, strict=True))),
        reads,
    )
    return DecodeReports(a.requests, a.generations, a.computed_tokens, columns)
