"""Makes the problems of a task in lm-eval's form, by lm-eval itself: data, few-shot examples, prompts and targets."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from hyperscale.errors import TaskError, first_line
from hyperscale.scoring.graders.likelihood import GREEDY, METRICS
from hyperscale.scoring.graders.lm_eval_match import INSTALL
from hyperscale.tasks.row_formats import Option, ProblemRow
from hyperscale.utils.hub import quiet_datasets, reachable
from hyperscale.utils.paths import is_there
from hyperscale.utils.user_functions import load_function
from hyperscale.utils.validation import shorten

if TYPE_CHECKING:
    from hyperscale.models.prompts import PromptFormat

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
        metric: Of a task that is scored by likelihood, the metric that counts; empty for a generated one.
        renders: Whether lm-eval also puts prompts into the model's chat template, as with ``--apply_chat_template``;
            else they are one message of the user's.
        multiturn: Whether each example is then a turn of its own (``--fewshot_as_multiturn``).
    """

    path: Path
    config: Mapping[str, Any]
    is_local: bool
    metric: str = ""
    renders: bool = False
    multiturn: bool = True

    def rows(
        self, limit: int | None, data: str | None, task: str, prompt_format: "PromptFormat | None" = None
    ) -> list[ProblemRow]:
        """The first ``limit`` problems, in the order of their split.

        Args:
            limit: Number of problems; all if None.
            data: A JSONL, JSON, CSV or Parquet file that stands in for the split that is asked; or a folder with a
                file for each split, ``test.jsonl``, or with a copy of the data set as the hub has it.
            task: The task's name.
            prompt_format: How the model's prompts are made; None for plain ones.

        Raises:
            TaskError: lm-eval is not installed, the data cannot be loaded, or a template names a field that is not
                there.
        """
        made = self._make(data)
        docs = made.eval_docs
        count = len(docs) if limit is None else min(limit, len(docs))
        template = prompt_format if self.renders and prompt_format is not None and not prompt_format.is_plain else None
        plain = [self._ask(docs[number], number, made.fewshot_context) for number in range(count)]
        asked = plain
        if template is not None:
            made.set_fewshot_seed(FEWSHOT_SEED)  # the same examples again
            in_template = partial(
                made.fewshot_context,
                system_instruction=template.system,
                apply_chat_template=True,
                fewshot_as_multiturn=self.multiturn,
                chat_template=template.render,
            )
            asked = [self._ask(docs[number], number, in_template) for number in range(count)]
        elif self.metric and prompt_format is not None and prompt_format.system:
            start = prompt_format.system.rstrip("\n") + "\n\n"  # as in front of every plain prompt
            asked = [[start + text for text in texts] for texts in plain]
        rows = []
        for number in range(count):
            place, doc = self._place(number), docs[number]
            try:
                target = _places(made, doc) if self.metric else _target(made, doc)
                options = _options(made, doc, asked[number], template is not None) if self.metric else ()
            except Exception as error:  # what templates and the user's functions raise
                self._fail(error, place)
            prompt = "\n".join(plain[number])
            rendered = asked[number][0] if template is not None and not self.metric else None
            rows.append(ProblemRow(str(number), {"prompt": prompt}, target, None, place, rendered, options))
        return rows

    def _place(self, number: int) -> str:
        return f"{self.path}: row {number + 1} of {self._split}"

    def _ask(self, doc: Any, number: int, make: Callable[..., str | list[str]]) -> list[str]:
        """What a problem asks, with its examples; several texts where each option stands in one."""
        try:
            made = make(doc, self.config.get("num_fewshot") or 0)
        except Exception as error:  # what templates and the user's functions raise
            self._fail(error, self._place(number))
        return made if isinstance(made, list) else [made]

    def with_parameters(self, values: Mapping[str, Any], task: str) -> Self:
        """The problems with other examples, or graded by another of the task's metrics.

        Raises:
            TaskError: There is no such parameter, or a value makes no sense.
        """
        names = [
            "num_fewshot",
            *(["fewshot_as_multiturn"] if self.renders else []),
            *(["metric"] if self.metric else []),
        ]
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name not in names:
                raise TaskError(f"{task} has no parameter {name!r}; it has: {', '.join(names)}")
            text = str(value).lower()
            if name == "num_fewshot":
                if not text.isdecimal():
                    raise TaskError(f"num_fewshot of {task} is a number of examples, not {value!r}")
                changes["config"] = {**self.config, "num_fewshot": int(text)}
            elif name == "fewshot_as_multiturn":
                if text not in ("true", "false"):
                    raise TaskError(f"fewshot_as_multiturn of {task} is true or false, not {value!r}")
                changes["multiturn"] = text == "true"
            else:
                if text not in METRICS or self.metric == GREEDY:
                    known = GREEDY if self.metric == GREEDY else ", ".join(METRICS)
                    raise TaskError(f"metric of {task} is one of {known}, not {value!r}")
                changes["metric"] = text
        return replace(self, **changes)

    @property
    def metric_name(self) -> str:
        """The metric that counts, by lm-eval's name."""
        return "acc" if self.metric == GREEDY else self.metric or "exact_match"

    @property
    def _name(self) -> str:
        """The name by which a run has the task, to say what else of it may be given."""
        package = find_spec("lm_eval")
        folders = (package.submodule_search_locations if package is not None else None) or ()
        is_shipped = any(self.path.is_relative_to(folder) for folder in folders)
        return f"{'lm_eval:' if is_shipped else ''}{self.config['task']}"

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
            with quiet_datasets(offline=data is not None or (not self.is_local and not reachable())):
                made = ConfigurableTask(config=config)
        except Exception as error:  # lm-eval, datasets and the hub raise many kinds
            self._fail(error, str(self.path), has_data=data is not None)
        made.set_fewshot_seed(FEWSHOT_SEED)
        return made

    def _load_functions(self, value: Any) -> Any:
        if hasattr(value, "as_function"):
            return load_function(value.as_function, value.folder, TaskError)
        if isinstance(value, dict):
            return {key: self._load_functions(entry) for key, entry in value.items()}
        return [self._load_functions(entry) for entry in value] if isinstance(value, list) else value

    def _dataset(self, data: str | None) -> dict[str, Any]:
        """Where the data are: paths relative to the file's folder, where they are there."""
        kwargs = dict(self.config.get("dataset_kwargs") or {})
        path = str(self.config["dataset_path"])
        files = kwargs.get("data_files")
        if data is not None and Path(data).is_dir():
            return self._folder(Path(data))
        if data is not None:
            loader = _LOADERS.get(Path(data).suffix)
            if loader is None or not Path(data).is_file():
                raise TaskError(f"--data: {data} is no {', '.join(_LOADERS)} file that is there")
            others = files if isinstance(files, dict) else {}
            kwargs["data_files"] = {**self._beside(others), self._split: data}
            return {"dataset_path": loader, "dataset_name": None, "dataset_kwargs": kwargs}
        if files is not None:
            kwargs["data_files"] = self._beside(files)
        return {"dataset_path": self._beside(path) if path not in _LOADERS.values() else path, "dataset_kwargs": kwargs}

    def _folder(self, folder: Path) -> dict[str, Any]:
        """Data of a folder: a file for each split, or the data set as the hub has it."""
        inner = folder / str(self.config.get("dataset_name"))
        files = next((found for place in (inner, folder) if (found := _files_of_splits(place))), {})
        if not files:
            return {"dataset_path": str(folder), "dataset_kwargs": {}}
        if self._split not in files:
            raise TaskError(f"--data: {folder} has files of {', '.join(files)}, and none of the split {self._split}")
        kinds = {_LOADERS[path.suffix] for path in files.values()}
        if len(kinds) > 1:
            raise TaskError(f"--data: the files of {folder} are {' and '.join(sorted(kinds))}: write all in one format")
        data_files = {split: str(path) for split, path in files.items()}
        return {"dataset_path": kinds.pop(), "dataset_name": None, "dataset_kwargs": {"data_files": data_files}}

    def _beside(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._beside(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self._beside(entry) for entry in value]
        path = self.path.parent / str(value)
        return str(path) if is_there(path) else value

    def _fail(self, error: Exception, place: str, *, has_data: bool = True) -> NoReturn:
        """What went wrong, by the key whose template it is where that can be told."""
        if isinstance(error, TaskError):
            raise error if str(self.path) in str(error) else TaskError(f"{place}: {error}") from None
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
        if "larger than population" in text:
            asked = self.config.get("num_fewshot")
            raise TaskError(
                f"{place}: num_fewshot is {asked}, and there are fewer examples beside the problem: ask for fewer, "
                f"--task-param {self._name}.num_fewshot=N"
            ) from None
        remedy = f": check the name and the network, or pass its data with --data {self._name}=PATH, a file or a folder"
        remedy = "" if self.is_local or has_data else remedy
        raise TaskError(f"{place}: lm-eval cannot make the task ({type(error).__name__}: {text}){remedy}") from None


def _files_of_splits(folder: Path) -> dict[str, Path]:
    """The data files of a folder by the splits that they are named after."""
    if not folder.is_dir():
        return {}
    names = {"train", "validation", "test", "dev", "val", "valid"}
    found = sorted(path for path in folder.iterdir() if path.suffix in _LOADERS and path.stem in names)
    return {path.stem: path for path in found}


def _options(made: Any, doc: Any, contexts: list[str], in_template: bool) -> tuple[Option, ...]:
    """What lm-eval would have scored."""
    asked = contexts if made.multiple_input else contexts[0]
    requests = made.construct_requests(doc, asked, apply_chat_template=in_template)
    if not isinstance(requests, list):
        context, continuation = requests.args
        texts, pairs = [continuation], [(context, continuation)]
    else:
        texts, pairs = made.doc_to_choice(doc), [request.args for request in requests]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise TaskError(f"its options are {shorten(texts)}: they must be a list of texts, none of them empty")
    return tuple(Option(text, *pair) for text, pair in zip(texts, pairs, strict=True))


def _places(made: Any, doc: Any) -> list[str]:
    """The places of the right options, as lm-eval's ``process_results`` finds them; none where the data name none."""
    if made.OUTPUT_TYPE == "loglikelihood":
        return [GREEDY]
    choices = made.doc_to_choice(doc)
    gold = made.doc_to_text(doc) if made.multiple_input else made.doc_to_target(doc)
    if isinstance(gold, str):
        gold = choices.index(gold) if gold in choices else len(choices)
    places = gold if isinstance(gold, list) else [gold]
    return [str(int(place)) for place in places if place < len(choices)]


def _target(made: Any, doc: Any) -> str | list[str]:
    """What lm-eval compares an answer with, as its ``process_results`` takes it."""
    gold = made.doc_to_target(doc)
    if made.config.doc_to_choice is not None:
        return str(made.doc_to_choice(doc)[gold])
    return [str(text) for text in gold] if isinstance(gold, list) else str(gold)
