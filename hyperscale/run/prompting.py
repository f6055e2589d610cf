"""Makes a run's prompts as its settings ask for, and works out what is inserted where its chains are steered."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hyperscale import models
from hyperscale.errors import ConfigError, ModelError, TaskError
from hyperscale.run.config.task_kinds import likelihood_tasks
from hyperscale.utils.validation import shorten

if TYPE_CHECKING:
    from hyperscale.engines.base import Steering
    from hyperscale.models.prompts import Prompt, PromptFormat
    from hyperscale.results.samples import Sample
    from hyperscale.run.config.resolve import ResolvedConfig
    from hyperscale.tasks.task import Doc, Task

    ScoredIds = tuple[tuple[int, ...], tuple[int, ...]]
    """Token ids of a context and of the option behind it."""


def make_prompt_format(config: "ResolvedConfig", tokenizer: Any, date: datetime) -> "PromptFormat":
    """How the problems of a run are put to its model.

    Raises:
        ConfigError: The model has no such template, or it takes no such argument.
        ModelError: The model has several templates, and none of them is its default.
    """
    from hyperscale.models.prompts import PromptFormat

    return PromptFormat(
        tokenizer,
        template=config.chat_template,
        system=config.system_prompt,
        arguments=config.template_args,
        date=date,
        marks=models.find(config.model).thinking,
    )


def steering_of(config: "ResolvedConfig") -> "Steering":
    """How a run steers its chains."""
    from hyperscale.engines.base import Steering

    return Steering(config.extend, config.extend_word, config.force_answer)


def with_insertions(
    config: "ResolvedConfig", tokenizer: Any, prompt_format: "PromptFormat", openings: "Iterable[tuple[Task, str]]"
) -> "ResolvedConfig":
    """The configuration with the number of tokens that are inserted in front of forced answers.

    Args:
        config: The run's configuration.
        tokenizer: Its model's tokenizer.
        prompt_format: How prompts are made.
        openings: Each task, with the marks of thinking that its prompts open.

    Raises:
        EngineError: The tokenizer cannot write what is to be inserted: the word of --extend, or what stands in front of
            an answer.
    """
    steering = steering_of(config)
    if not steering:
        return config
    from hyperscale.engines.base import Request, Sampling
    from hyperscale.engines.steering import TokenSteering

    steered = TokenSteering(tokenizer, Sampling(steering=steering, marks=prompt_format.marks))
    requests = {Request("", 0, (0,), 1, opened=opened, cue=cue_of(task)) for task, opened in openings}
    most = max((steered.branch_tokens(request) for request in requests), default=0)
    return config.model_copy(update={"inserted_tokens": most - steering.answer}) if steering.answer else config


def cue_of(task: "Task") -> str:
    """How an answer begins in a task's form."""
    return task.new_grader().cue


def check_prompts(docs: "Iterable[Doc]", prompt_format: "PromptFormat") -> None:
    """Refuse problems that the model could not read as they are.

    Raises:
        TaskError: The tokenizer cannot write one; the message names its place in the data.
        ConfigError: It cannot write the system prompt.
    """
    if part := prompt_format.find_unwritable(prompt_format.system or ""):
        raise ConfigError(
            f"--system-prompt: the model's tokenizer cannot write {shorten(part.strip() or part)}, and would leave it "
            "out: write it otherwise"
        )
    for doc in docs:
        texts = [doc.prompt, *(option.continuation for option in doc.options)]
        part = next(filter(None, map(prompt_format.find_unwritable, texts)), "")
        if part:
            place = doc.place or f"problem {doc.id}"
            remedy = "write it otherwise, or leave the problem out" if doc.place else "take another model or task"
            raise TaskError(
                f"{place}: the model's tokenizer cannot write {shorten(part.strip() or part)} of its prompt, and "
                f"would leave it out: {remedy}"
            )


def check_tokenizers(paths: "Iterable[str]", tokenizer: Any, texts: "Iterable[str]") -> None:
    """Refuse checkpoints that would not read a run's prompts: all arms are given the first one's tokens.

    Args:
        paths: The other checkpoints.
        tokenizer: The first one's, by which prompts are made.
        texts: Some prompts.

    Raises:
        ModelError: A checkpoint's tokenizer writes one of them in other tokens, or cannot be loaded.
    """
    from hyperscale.utils.hub import load_tokenizer

    encoded = {text: tokenizer.encode(text, add_special_tokens=False) for text in texts}
    for path in paths:
        own = load_tokenizer(path)
        if any(own.encode(text, add_special_tokens=False) != ids for text, ids in encoded.items()):
            raise ModelError(
                f"the tokenizer of {path} writes prompts in other tokens than that of the run's first method, so the "
                "two cannot be compared on the same prompts: run them in folders of their own"
            )


def make_prompt(doc: "Doc", prompt_format: "PromptFormat") -> "Prompt":
    """A problem as the model reads it; of one that is scored by likelihood, the context of its first option."""
    from hyperscale.models.prompts import Prompt

    if doc.options:
        first = doc.options[0]
        return Prompt(first.context, prompt_format.encode_pair(first.context, first.continuation)[0], "")
    if doc.rendered is not None:
        return prompt_format.from_text(doc.rendered)
    return prompt_format.prompt(doc.prompt, continued=doc.continued)


def encode_options(
    docs: "Iterable[Doc]", prompt_format: "PromptFormat", context: int | None
) -> "tuple[list[tuple[ScoredIds, ...]], str | None]":
    """The options of problems that are scored by likelihood, in tokens, and a note if contexts had to be cut.

    As under lm-eval, a context that does not fit the model loses its beginning.

    Args:
        docs: The problems.
        prompt_format: How prompts are made.
        context: Most tokens of a sequence; None if unknown.

    Raises:
        TaskError: An option alone does not fit the model's context.
    """
    encoded, cut, count = [], 0, 0
    for doc in docs:
        pairs = []
        for option in doc.options:
            ids, scored = prompt_format.encode_pair(option.context, option.continuation)
            count += 1
            if context is not None:
                # The last token is scored and never processed, so one more token of context has room.
                room = context + 1 - len(scored)
                if room < 1:
                    raise TaskError(
                        f"{doc.place}: an option of {len(scored):,} tokens does not fit the model's context of "
                        f"{context:,}: leave the problem out"
                    )
                cut += len(ids) > room
                ids = ids[-room:]
            pairs.append((ids, scored))
        encoded.append(tuple(pairs))
    if not cut:
        return encoded, None
    return encoded, f"{cut} of {count} contexts do not fit the model's {context:,} tokens: they are cut from the left"


def scored_length(tokens: "Iterable[int]") -> int:
    """L of a task that is scored by likelihood: the power of two that the tokens of every problem's options fit in."""
    return 1 << max(max(tokens, default=1) - 1, 0).bit_length()


def old_chain_notes(prompts: "Iterable[Prompt]", samples: "Iterable[Sample]") -> list[str]:
    """What is to be said about chains of earlier versions, which had to close a thinking whatever they were asked."""
    # Only they have no hash of the question.
    if all(prompt.opened for prompt in prompts) or all(sample.message_hash for sample in samples):
        return []
    return [
        "chains of an earlier version in this folder count as without an answer unless they close a thinking; the new "
        "ones are graded by what prompt and text opened: choose another folder with --out for a model that does not "
        "think"
    ]


def prompt_notes(prompt_format: "PromptFormat", config: "ResolvedConfig") -> list[str]:
    """What is to be said about a run's prompts."""
    if not prompt_format.is_plain:
        return []
    reason = "as --chat-template asks for" if config.chat_template else f"{config.model} has no chat template"
    return [f"prompts are plain text, {reason}: what a model of chats would do with them is not measured"]


def likelihood_notes(config: "ResolvedConfig") -> list[str]:
    """What has no effect on tasks that are scored by likelihood."""
    names = likelihood_tasks(config.tasks)
    settings = [
        *(["--vote"] if config.vote else []),
        *(["W above 1"] if max(config.grid.widths) > 1 else []),
        *(["--length"] if config.lengths else []),
        *(["--extend"] if config.extend else []),
        *(["--force-answer"] if config.force_answer else []),
    ]
    if not names or not settings:
        return []
    verb = "is" if len(names) == 1 else "are"
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return [
        f"{shown} {verb} scored by likelihood, one verdict a problem: {', '.join(settings)} "
        f"{'does' if len(settings) == 1 else 'do'} not apply there"
    ]
