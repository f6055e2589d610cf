"""Adds up what each request read and held, from the workers' reports, by the ledger's definition of cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any


@dataclass(frozen=True)
class CostRequest:
    """Which costs a client asks for in a request's ``kv_transfer_params``.

    Attributes:
        cuts: Numbers of generated tokens at which costs are wanted.
        noise_key: Noise key for methods that draw, a signed 64-bit number; None for the request's seed. Clients call
            it ``key``.
        follow: Whether costs are wanted with every token.
        arm: Number of the method that the request runs by (`hyperscale.engines.vllm.arms`).
        steps: Whether the costs of each token are wanted, as whole numbers over all lists.
        prompt: P, where the request's tokens begin with those of a chain that goes on; None for all of them.
        L: Most tokens of the chain, for rules that depend on it; None for the request's own.
        ignored_names: Names of those above that came as something else. A request cannot be refused where they are
            read, and an error there would end the engine for all.
    """

    cuts: tuple[int, ...] = ()
    noise_key: int | None = None
    follow: bool = False
    arm: int = 0
    steps: bool = False
    prompt: int | None = None
    L: int | None = None
    ignored_names: tuple[str, ...] = ()

    @classmethod
    def read(cls, params: Any, arms: int = 1) -> "CostRequest":
        """Take what makes sense of what a client sent to an engine with so many arms.

        ``checkpoints`` is an older name of ``cuts``.
        """
        params = params if isinstance(params, Mapping) else {}
        cuts_name = "cuts" if "cuts" in params else "checkpoints"
        cuts, key, follow = params.get(cuts_name) or (), params.get("key"), params.get("follow") or False
        arm = params.get("arm", 0)
        steps, prompt, length = params.get("steps") or False, params.get("prompt"), params.get("L")
        valid = {
            cuts_name: isinstance(cuts, (list, tuple)) and all(map(_is_whole, cuts)),
            "key": key is None or (_is_whole(key) and -(1 << 63) <= key < 1 << 63),
            "follow": isinstance(follow, bool),
            "arm": _is_whole(arm) and 0 <= arm < arms,
            "steps": isinstance(steps, bool),
            "prompt": prompt is None or (_is_whole(prompt) and prompt > 0),
            "L": length is None or (_is_whole(length) and length > 0),
        }
        return cls(
            cuts=tuple(cuts) if valid[cuts_name] else (),
            noise_key=key if valid["key"] else None,
            follow=follow if valid["follow"] else False,
            arm=arm if valid["arm"] else 0,
            steps=steps if valid["steps"] else False,
            prompt=prompt if valid["prompt"] else None,
            L=length if valid["L"] else None,
            ignored_names=tuple(name for name, holds in valid.items() if not holds),
        )

    def with_length(self, least: int, most: int) -> "CostRequest":
        """The same with an L that the request can have: the least one where the client's makes no sense, or is missing.

        Methods with a state reserve by L what they will hold, and keep it in tables of that size.

        Args:
            least: Tokens that the request has behind its prompt, and those that it may still draw.
            most: Tokens that the engine lets any request have behind this prompt.
        """
        if self.L is None or least <= self.L <= most:
            return replace(self, L=self.L or least)
        return replace(self, L=least, ignored_names=(*self.ignored_names, "L"))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # to Python, True is an int


@dataclass
class RequestCosts:
    """Costs of one request after each of its tokens.

    A step is known by the position of the token that it processed, not by what kind of step it was: position P - 1 is
    the end of prefill, whose reads do not count; every later one is a decode step, also where vLLM recomputes it as
    part of a chunk after a preemption, and then it counts once.

    Attributes:
        prompt_tokens: P.
        num_lists: Layers times KV heads of the whole model: reports are sums over them, costs are means.
        cost_request: What the client asks for.
        reads: Decode reads up to each generated token, summed over lists.
        peaks: Largest number of live entries up to each token, likewise.
        num_told: Tokens whose own costs the client has been told.
        prompt_reads: Entries that the prompt's queries read so far, summed over lists.
        prompt_counted: Tokens of the prompt that these are of.
    """

    prompt_tokens: int
    num_lists: int
    cost_request: CostRequest = field(default_factory=CostRequest)
    reads: list[int] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    num_told: int = 0
    prompt_reads: int = 0
    prompt_counted: int = 0

    def record_prompt(self, first: int, last: int, reads: int) -> None:
        """Book what a part of the prompt read.

        A request that starts anew after a preemption begins with position 0 again, in parts that may be others. What a
        whole prompt has read stands, and a report that is read twice changes nothing.

        Args:
            first: Position of the part's first token.
            last: Position behind its last one.
            reads: Entries that its queries read, summed over lists.
        """
        if self.prompt_counted == self.prompt_tokens:
            return
        if first == 0:
            self.prompt_reads = self.prompt_counted = 0
        if first == self.prompt_counted:
            self.prompt_reads, self.prompt_counted = self.prompt_reads + reads, last

    def record(
        self, computed_tokens: int, live_entries: Sequence[int], read_entries: Sequence[int] | None = None
    ) -> None:
        """Book the positions of a report: the last ``len(live_entries)`` before ``computed_tokens``.

        Args:
            computed_tokens: See `RequestReport`.
            live_entries: Entries live at each position, summed over all lists.
            read_entries: Entries read at each position, likewise; None if all that lived.
        """
        # Position P - 1 draws the first generated token, number 0.
        token = computed_tokens - len(live_entries) - (self.prompt_tokens - 1)
        known = len(self.reads) - token
        assert known >= 0, f"position {computed_tokens - len(live_entries)} was never reported"
        # What is known was booked already: a report that is read twice, or steps recomputed after a preemption.
        live, read = live_entries[known:], (read_entries or live_entries)[known:]
        if live and not self.reads:
            # The first token is drawn at the end of prefill, whose reads do not count.
            self.reads.append(0)
            self.peaks.append(live[0])
            live, read = live[1:], read[1:]
        if live:
            self.reads += list(accumulate(read, initial=self.reads[-1]))[1:]
            self.peaks += list(accumulate(live, max, initial=self.peaks[-1]))[1:]

    def summarize(self, tokens: int) -> dict[str, Any]:
        """Costs of the first ``tokens`` tokens, means over lists, JSON-able; empty if there are none.

        With ``steps``: also reads and peak, sums over lists, up to each token that was not in the summary before.
        """
        tokens = min(tokens, len(self.reads))
        if not tokens:
            return {}
        # A chain that ended before a cut has no costs there; its end is always one.
        cuts = sorted({cut for cut in self.cost_request.cuts if 0 < cut < tokens} | {tokens})
        more: dict[str, Any] = {}
        if self.prompt_counted == self.prompt_tokens:
            more["prefill_reads"] = self.prompt_reads / self.num_lists
        if self.cost_request.ignored_names:
            more["ignored"] = list(self.cost_request.ignored_names)
        if self.cost_request.steps:
            told, self.num_told = self.num_told, tokens
            more["steps"] = [list(pair) for pair in zip(self.reads[told:tokens], self.peaks[told:tokens], strict=True)]
        return {
            "tokens": tokens,
            "kv_reads": self.reads[tokens - 1] / self.num_lists,
            "peak_kv": self.peaks[tokens - 1] / self.num_lists,
            "prefill_kv": self.peaks[0] / self.num_lists,
            "cuts": [[cut, self.reads[cut - 1] / self.num_lists, self.peaks[cut - 1] / self.num_lists] for cut in cuts],
            **more,
        }
