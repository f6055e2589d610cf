"""StreamingLLM: keeps the first entries of the sequence, as attention sinks, and the most recent ones."""

from dataclasses import dataclass

from hyperscale.errors import MethodError
from hyperscale.methods.core.base import HostModel
from hyperscale.methods.core.budgeted import BudgetedMethod
from hyperscale.methods.core.row_budget import BudgetRule
from hyperscale.methods.window import RecentState


class _SinksAndRecent(RecentState):
    def __init__(self, method: "Streaming", host: HostModel) -> None:
        super().__init__(method, host, method.sinks)


@dataclass
class Streaming(BudgetedMethod):
    """Keeps the first ``sinks`` entries of the sequence and the newest B - ``sinks``.

    A token at position q sees {k < sinks} and {k > q - (B - sinks)}. The sinks count into F, so B holds at least them
    and the ``recent`` newest entries. The prompt is prefilled densely and pruned after it.

    Differs from the reference code in the positions: there keys are cached before RoPE and rotated by their place in
    the cache at every step, so that distances stay below B and the model can run past the length it was trained on.
    Here, as for all methods, entries keep the rotation of their place in the text: chains stay within the model's
    context, and the sinks are as far away as they are.

    Parameters:
        sinks: First entries that are never evicted.
    """

    name = "streaming"
    summary = "attention sinks: first entries of the sequence and most recent ones kept"
    source = "Xiao et al. 2023 (StreamingLLM), arXiv 2309.17453; budget (P + L) / CR of arXiv 2506.05345"
    state = _SinksAndRecent

    rule: BudgetRule = "fixed"
    recent: int = 1
    pin_prompt: bool = False
    sinks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sinks < 0:
            raise MethodError(f"sinks of streaming must be at least 0, not {self.sinks}")

    def always(self, prompt: int) -> int:
        """See `BudgetedMethod.always`; a pinned prompt shorter than the sinks is among them."""
        # Sinks and a pinned prompt both start at position 0: the longer one contains the other.
        return self.recent + max(self.sinks, prompt if self.pin_prompt else 0)
