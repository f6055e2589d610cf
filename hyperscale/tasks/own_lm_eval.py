"""Makes the problems of a task in lm-eval's form, by lm-eval itself: data, few-shot examples, prompts and targets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from hyperscale.errors import TaskError, first_line
from hyperscale.scoring.graders.lm_eval_match import INSTALL
from hyperscale.tasks.row_formats import ProblemRow
from hyperscale.utils.hub import quiet_datasets, reachable
from hyperscale.utils.paths import is_there
from hyperscale.utils.user_functions import load_function

FEWSHOT_SEED = 1234
"""lm-eval's own default, so that the examples are the same."""

_LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, eq=False)
class LmEvalProblems:
    """Problems as lm-eval makes them.

    Attributes:
        path: The task's file, for messages and for what it names.
        config: The keys of the file that are lm-eval's.
        is_local: Whether its data lie on this machine.
    """

    path: Path
    config: Mapping[str, Any]
    is_local: bool

    def rows(self, limit: int | None, data: str | None, task: str) -> list[ProblemRow]:
        """The first ``limit`` problems, in the order of their split.

        Args:
            limit: Number of problems; all if None.
            data: A JSONL, JSON, CSV or Parquet file that stands in for the split that is asked.
            task: The task's name.

        Raises:
            TaskError: lm-eval is not installed, the data cannot be loaded, or a template names a field that is not
                there.
        """
        made = self._make(data)
        docs = made.eval_docs
        count = len(docs) if limit is None else min(limit, len(docs))
        rows = []
        for number in range(count):
            place = f"{self.path}: row {number + 1} of {self._split}"
            try:
                prompt = made.fewshot_context(docs[number], self.config.get("num_fewshot") or 0)
                target = _target(made, docs[number])
            except Exception as error:  # what templates and the user's functions raise
                self._fail(error, place)
            rows.append(ProblemRow(str(number), {"prompt": prompt}, target, None, place))
        return rows

    def with_parameters(self, values: Mapping[str, Any], task: str) -> Self:
        """A task in lm-eval's form has no parameters."""
        raise TaskError(f"{task} has no parameter {next(iter(values))!r}; it has: none")

    @property
    def _split(self) -> str:
        return str(self.config.get("test_split") or self.config.get("validation_split"))

    def _make(self, data: str | None) -> Any:
        """lm-eval's task."""
        try:
            from lm_eval.api.task import ConfigurableTask
        except ImportError as error:
            raise TaskError(
                f"{self.path} has lm-eval's form, which lm-eval reads ({error.name} is missing): {INSTALL}"
            ) from None
        config = self._load_functions(dict(self.config))
        config |= self._dataset(data)
        try:
            with quiet_datasets(offline=not self.is_local and not reachable()):
                made = ConfigurableTask(config=config)
        except Exception as error:  # lm-eval, datasets and the hub raise many kinds
            self._fail(error, str(self.path))
        made.set_fewshot_seed(FEWSHOT_SEED)
        return made

    def _load_functions(self, value: Any) -> Any:
        if hasattr(value, "as_function"):
            return load_function(value.as_function, self.path.parent, TaskError)
        if isinstance(value, dict):
            return {key: self._load_functions(entry) for key, entry in value.items()}
        return [self._load_functions(entry) for entry in value] if isinstance(value, list) else value

    def _dataset(self, data: str | None) -> dict[str, Any]:
        """Where the data are: paths relative to the file's folder, where they are there."""
        kwargs = dict(self.config.get("dataset_kwargs") or {})
        path = str(self.config["dataset_path"])
        files = kwargs.get("data_files")
        if data is not None:
            loader = _LOADERS.get(Path(data).suffix)
            if loader is None or not Path(data).is_file():
                raise TaskError(f"--data: {data} is no {', '.join(_LOADERS)} file that is there")
            others = files if isinstance(files, dict) else {}
            kwargs["data_files"] = {**self._beside(others), self._split: data}
            return {"dataset_path": loader, "dataset_kwargs": kwargs}
        if files is not None:
            kwargs["data_files"] = self._beside(files)
        return {"dataset_path": self._beside(path) if path not in _LOADERS.values() else path, "dataset_kwargs": kwargs}

    def _beside(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._beside(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self._beside(entry) for entry in value]
        path = self.path.parent / str(value)
        return str(path) if is_there(path) else value

    def _fail(self, error: Exception, place: str) -> NoReturn:
        """What went wrong, by the key whose template it is where that can be told."""
        if isinstance(error, TaskError):
            raise error
        text = first_line(error)
        if (match := re.match(r"'(\w+)' is undefined", text)) is not None:
            name = match[1]
            key = next(
                (
                    k
                    for k in ("doc_to_text", "doc_to_target", "doc_to_choice", "description")
                    if name in str(self.config.get(k))
                ),
                "doc_to_text",
            )
            raise TaskError(f"{place}: {key} names {name!r}, which is no field of the data") from None
        remedy = "" if self.is_local else f": or pass {self._split} as a file, --data {self.config['task']}=PATH"
        raise TaskError(f"{place}: lm-eval cannot make the task ({type(error).__name__}: {text}){remedy}") from None


def _target(made: Any, doc: Any) -> str | list[str]:
    """What lm-eval compares an answer with, as its ``process_results`` takes it."""
    gold = made.doc_to_target(doc)
    if made.config.doc_to_choice is not None:
        return str(made.doc_to_choice(doc)[gold])
    return [str(text) for text in gold] if isinstance(gold, list) else str(gold)
