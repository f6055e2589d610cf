"""A step of CUDA's worker: its requests, and what the kernels are told of them."""

from dataclasses import dataclass, field

from torch import Tensor

from hyperscale.engines.vllm.kernels.arguments import ChunkRequests, DecodeRequests
from hyperscale.engines.vllm.kernels.chunk.fa3 import ChunkSequences
from hyperscale.engines.vllm.kernels.chunk.plan import ReadCounts
from hyperscale.engines.vllm.kernels.chunk.plan_storage import PlanStorage
from hyperscale.engines.vllm.kernels.step_launches import StepLaunches
from hyperscale.engines.vllm.worker.chunk_report import StepNumbers


@dataclass
class CudaStep:
    """The requests of a forward pass: first those that decode, then the chunks.

    Attributes:
        first_blocks: (requests,) int32, any stride.
        offsets: (requests + 1,) int32, where each one's tokens begin.
        computed_tokens: (requests,) int32, tokens of each one once the pass is done.
        starts: The same as ``offsets``, on the host.
        num_decodes: How many of the requests, all in front, have one token.
        longest: At least the entries of the longest list.
        capturing: Whether the pass is recorded as a CUDA graph.
        decodes: The requests that decode. Like what follows it is known once the first layer has asked
            (`CudaCacheWorker.resolve_step`), as the step's instructions arrive after vLLM has made this object.
        chunks: The requests with chunks.
        decode_expiry: (requests that decode,) int32, expiries of the new entries; None unless known now.
        chunk_expiry: (heads, tokens) int32, likewise of all tokens; None where verdicts say it, or until a layer asks.
        plans: What the plans of the chunks are written to; None where FlashAttention attends to them.
        slots: (requests,) int64; None if the method does not look at them.
        counts: Where reads of the chunks' queries are added up, of all heads and layers to the same numbers; None if no
            chunk has a position whose reads are wanted.
        report: Of a step with chunks: what it is reported with; see `StepNumbers`.
        sequences: The chunks for FlashAttention 3, where it can attend; None if the plugin's own kernel does.
        prompts: Of the requests that process a prompt, for hosted methods: slot, first and last index (exclusive) of
            its tokens in the batch, and position of the first.
        chunk_ends: (chunks,) int64, each one's last token in the batch, for hosted methods that look at no other query.
    """

    first_blocks: Tensor
    offsets: Tensor
    computed_tokens: Tensor
    starts: list[int]
    num_decodes: int
    longest: int
    capturing: bool = False
    decodes: DecodeRequests | None = None
    chunks: ChunkRequests | None = None
    decode_expiry: Tensor | None = None
    chunk_expiry: Tensor | None = None
    plans: PlanStorage | None = None
    slots: Tensor | None = None
    counts: ReadCounts | None = None
    report: StepNumbers | None = None
    sequences: ChunkSequences | None = None
    prompts: list[tuple[int, int, int, int]] = field(default_factory=list)
    chunk_ends: Tensor | None = None
    launches: StepLaunches = field(default_factory=StepLaunches)

    @property
    def tokens(self) -> int:
        """Tokens of the batch, padding not counted."""
        return self.starts[-1]
