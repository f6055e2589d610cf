"""Likelihood of texts as pandas frames: by method, by position, and by document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperscale.likelihood.scoring import Floats, TokenScores
from hyperscale.likelihood.settings import LikelihoodSettings
from hyperscale.likelihood.summary import Estimate, estimate, excess, read_ratio, realised_cr, split_positions
from hyperscale.methods.arm import Arm

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1  # of the summary


@dataclass(frozen=True)
class Likelihood:
    """How well texts are predicted under compression, against the full cache.

    Nats are per token, means over the tokens behind the prompt. Intervals are 95 %, over documents; NaN with fewer than
    10 of them. Frames have ``method``, ``CR`` (1 with a budget in tokens) and ``kv_budget`` (tokens; 0 for none).

    Attributes:
        settings: What it was measured with, on this machine.
        files: The texts.
        documents_chosen: Names of the documents, in order.
        params: Each method's parameters.
        versions: Of the packages that computed it.
        full_nats: (documents, tokens) with the full cache.
        scores: Of each method.
    """

    settings: LikelihoodSettings
    files: tuple[str, ...]
    documents_chosen: tuple[str, ...]
    params: Mapping[Arm, Mapping[str, Any]] = field(repr=False)
    versions: Mapping[str, str] = field(repr=False)
    full_nats: Floats = field(repr=False)
    scores: Mapping[Arm, TokenScores] = field(repr=False)

    @cached_property
    def full(self) -> Estimate:
        """Nats a token with the full cache."""
        return estimate(self.full_nats.mean(1))

    @cached_property
    def arms(self) -> "pd.DataFrame":
        """A row a method and ratio.

        ``nats`` and ``above_full`` (nats more than with the full cache) with its interval, ``kl`` (KL(full ||
        compressed)) with its own, ``realised_cr`` (entries of the full cache over those kept) and ``read_ratio`` (the
        same of those read).
        """
        import pandas as pd

        return pd.DataFrame(
            [
                _columns(arm)
                | {"nats": float(scores.nats.mean())}
                | _interval("above_full", estimate(excess(scores).mean(1)))
                | _interval("kl", estimate(scores.kl.mean(1)))
                | {"realised_cr": realised_cr(scores), "read_ratio": read_ratio(scores)}
                for arm, scores in self.scores.items()
            ]
        )

    @cached_property
    def buckets(self) -> "pd.DataFrame":
        """A row a method, ratio and eighth of the positions, ``first`` to ``last`` counted from 0 in the document."""
        import pandas as pd

        start = self.settings.prompt_tokens
        rows = []
        for arm, scores in self.scores.items():
            for first, last in split_positions(start, self.settings.length):
                part = slice(first - start, last + 1 - start)
                rows.append(
                    _columns(arm)
                    | {"first": first, "last": last, "nats": float(scores.nats[:, part].mean())}
                    | _interval("above_full", estimate(excess(scores)[:, part].mean(1)))
                    | _interval("kl", estimate(scores.kl[:, part].mean(1)))
                    | {"kept": float(scores.kept[:, part].mean())}
                )
        return pd.DataFrame(rows)

    @cached_property
    def positions(self) -> "pd.DataFrame":
        """A row a method, ratio and position in the document: means over documents, and entries kept."""
        import pandas as pd

        frames = []
        for arm, scores in self.scores.items():
            values = {
                "position": range(self.settings.prompt_tokens, self.settings.length),
                "nats": scores.nats.mean(0),
                "full_nats": scores.full_nats.mean(0),
                "kl": scores.kl.mean(0),
                "kept": scores.kept.mean(0),
                "full": scores.full,
            }
            frames.append(pd.DataFrame(_columns(arm) | values))
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def documents(self) -> "pd.DataFrame":
        """A row a method, ratio and document: means over its tokens."""
        import pandas as pd

        frames = []
        for arm, scores in self.scores.items():
            values = {
                "document": self.documents_chosen,
                "nats": scores.nats.mean(1),
                "full_nats": scores.full_nats.mean(1),
                "kl": scores.kl.mean(1),
                "kept": scores.kept.mean(1),
            }
            frames.append(pd.DataFrame(_columns(arm) | values))
        return pd.concat(frames, ignore_index=True)

    def summary(self) -> dict[str, Any]:
        """Settings and results as JSON has them; what is not known is None."""
        import platform

        import hyperscale

        own = {"hyperscale": hyperscale.__version__, "python": platform.python_version()}
        return {
            "schema": SCHEMA,
            "settings": self.settings.model_dump(mode="json"),
            "files": list(self.files),
            "documents": len(self.documents_chosen),
            "versions": own | dict(self.versions),
            "params": {str(arm): dict(params) for arm, params in self.params.items()},
            "full_nats": _plain(self.full._asdict()),
            "arms": [_plain(row) for row in self.arms.to_dict("records")],
            "buckets": [_plain(row) for row in self.buckets.to_dict("records")],
        }

    def plot(self) -> Any:
        """A matplotlib figure: nats above the full cache over the position, a panel a ratio, a line a method."""
        import matplotlib as mpl

        from hyperscale.likelihood.picture import draw
        from hyperscale.report.plots.figure import RC

        with mpl.rc_context(RC):  # as in the file
            return draw(self.scores, self.settings)

    def write(self, folder: Path | str) -> list[Path]:
        """Write all numbers and the picture into a folder; returns the files.

        Raises:
            ConfigError: The folder holds a run, or is a file.
        """
        from hyperscale.likelihood.files import write
        from hyperscale.likelihood.markdown import format_tables

        tables = {
            "likelihood": self.arms,
            "buckets": self.buckets,
            "positions": self.positions,
            "documents": self.documents,
        }
        documents, tokens = self.full_nats.shape
        markdown = format_tables(documents, tokens, self.full.mean, self.arms, self.buckets)
        return write(Path(folder), self.summary(), tables, markdown, self.plot)


def _columns(arm: Arm) -> dict[str, Any]:
    return {"method": arm.method, "CR": arm.CR, "kv_budget": arm.kv_budget}


def _interval(name: str, value: Estimate) -> dict[str, float]:
    return {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): None if value != value else value for name, value in row.items()}  # NaN is not itself
