"""Puts a message into the form that a model reads: its chat template, or plain text where it has none."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import Any

from hyperscale.errors import ConfigError, ModelError, first_line
from hyperscale.models import thinking

PLAIN = "none"
"""What ``--chat-template`` takes for a prompt without a template."""
_REMEDY = (
    "pass what it needs with --template-arg or --system-prompt, another one with --chat-template FILE, or "
    f"--chat-template {PLAIN} for a plain prompt"
)
_TRUTH_VALUES = ("true", "false", "yes", "no", "on", "off", "null", "none")  # as text; real ones are no text
_END_OF_MESSAGE = "[end of the message]"
_MARK_CHARS = 100  # of a prompt's end: any mark of thinking is shorter
# What a template may ask the present date for: what C's strftime knows, padded and not.
_DIRECTIVES = [f"%-{letter}" for letter in "dmHIMSj"] + [f"%{letter}" for letter in "aAbBcdDeFGHIjmMpRSTuUVwWxXyYzZfh"]


@dataclass(frozen=True)
class Prompt:
    """A message as the model sees it.

    Attributes:
        text: The whole prompt.
        ids: Its token ids.
        opened: The mark of the thinking that it leaves open, in the form of `thinking.TABLE`; empty if it leaves none.
    """

    text: str
    ids: tuple[int, ...]
    opened: str


class PromptFormat:
    """How a model's prompts are made.

    Attributes:
        template: The Jinja template; None for plain prompts.
        marks: Marks of thinking that the model has and `thinking.TABLE` has not.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str | None = None,
        system: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        date: datetime | None = None,
        marks: tuple[str, str] | None = None,
    ) -> None:
        """Choose the template.

        Args:
            tokenizer: A transformers tokenizer.
            template: Name of one of the tokenizer's templates, path of a file with one, or "none". None: its own one,
                and a plain prompt if it has none.
            system: A message of the role "system" in front of each prompt.
            arguments: What the template is given besides the messages, e.g. ``enable_thinking``.
            date: What the template takes for the present; now if None.
            marks: Opening and closing of a thinking, for models whose marks `thinking.TABLE` lacks. None: those that
                the tokenizer's added tokens tell.

        Raises:
            ConfigError: There is no such template, or it takes no such argument.
            ModelError: The tokenizer has several templates, and none of them is its default.
        """
        self._tokenizer, self._system, self._arguments = tokenizer, system, dict(arguments or {})
        self.template = choose_template(tokenizer, template)
        self._dated_template = self.template and with_date(self.template, date or datetime.now())
        self.marks = marks or thinking.marks_of_tokens(getattr(tokenizer, "get_added_vocab", dict)())
        self._check_arguments()

    @property
    def is_plain(self) -> bool:
        """Whether prompts are plain text, without a template."""
        return self.template is None

    @property
    def system(self) -> str | None:
        """What the system's message says; None if there is none."""
        return self._system

    @property
    def kind(self) -> str:
        """What prompts are, in a word or two."""
        return "plain" if self.is_plain else "chat template"

    def prompt(self, message: str, *, continued: bool = False) -> Prompt:
        """The prompt of a user's message, opened for the model's turn.

        Args:
            message: The message.
            continued: Whether the model goes on where the message ends (``Answer:``); a plain prompt then ends so.

        Raises:
            ModelError: The template fails, or leaves the message or the system prompt out.
        """
        if self.template is None:
            return self._plain_prompt(message, continued)
        text, as_parts = self._render(message)
        turn = thinking.in_table_marks(self._turn(text, message, as_parts), self.marks)
        opened = thinking.open_marks(turn)
        return Prompt(text, self._encode(text, add_special_tokens=False), opened.opening if opened else "")

    def from_text(self, text: str) -> Prompt:
        """The prompt of a text that is in the model's form already, as `render` gives it."""
        end = thinking.in_table_marks(text[-_MARK_CHARS:], self.marks).rstrip()
        opened = thinking.open_marks(end) if thinking.ends_in_mark(end) else None
        return Prompt(text, self._encode_whole(text), opened.opening if opened else "")

    def render(self, messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """A conversation in the model's chat template, which a run's date and arguments are given to.

        Args:
            messages: The conversation.
            add_generation_prompt: Whether the model's turn is opened; else its last message goes on.

        Raises:
            ModelError: The template refuses it.
        """
        return apply_template(
            self._tokenizer,
            messages,
            self._dated_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self._arguments,
        )

    def encode_pair(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a context and of what follows it, split where lm-eval splits them.

        The blanks that a context ends in belong to the continuation. A context without a token is the token that a text
        begins with.

        Raises:
            ModelError: There is no such token.
        """
        rest = context.rstrip()
        context, continuation = rest, context[len(rest) :] + continuation
        if context:
            ids = self._encode_whole(context)
            following = self._encode_whole(context + continuation)[len(ids) :]
        else:
            ids, following = (), self._encode(continuation, add_special_tokens=False)
        if ids:
            return ids, following
        names = ("bos_token_id", "eos_token_id")
        start = next((i for name in names if (i := getattr(self._tokenizer, name, None)) is not None), None)
        if start is None:
            raise ModelError("a text without a context is to be scored, and the tokenizer has no token for its start")
        return (int(start),), following[1:] if following[:1] == (start,) else following

    def _encode_whole(self, text: str) -> tuple[int, ...]:
        """Ids of a whole text: what it begins with is not put there twice."""
        start = getattr(self._tokenizer, "bos_token", None)
        if start and text.startswith(start):
            return self._encode(text, add_special_tokens=False)
        return self._encode_open(text)

    def _encode_open(self, text: str) -> tuple[int, ...]:
        """Ids of a text that something follows: it begins as the tokenizer has it, and ends as it does by itself.

        Some tokenizers end every text (``add_eos_token``), which a prompt or a context must not.
        """
        ids = self._encode(text, add_special_tokens=True)
        end = getattr(self._tokenizer, "eos_token_id", None)
        added = _count_last(ids, end)
        if added:
            added = min(added - _count_last(self._encode(text, add_special_tokens=False), end), len(ids) - 1)
        return ids[: len(ids) - added]

    def find_unwritable(self, message: str) -> str:
        """The first part of a message that the tokenizer has no token for; empty if it can write all of it.

        Tokenizers without bytes to fall back on put one token in place of whatever they lack.
        """
        unknown = getattr(self._tokenizer, "unk_token_id", None)
        if unknown is None or str(self._tokenizer.unk_token) in message:
            return ""
        if unknown not in self._encode(message, add_special_tokens=False):
            return ""
        if not getattr(self._tokenizer, "is_fast", False):  # which alone know what a token stands for
            return message
        encoded = self._tokenizer(message, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return next(message[start:end] for token, (start, end) in pairs if token == unknown)

    def _plain_prompt(self, message: str, continued: bool) -> Prompt:
        parts = [self._system.rstrip("\n")] if self._system else []
        parts.append(message if continued else message.rstrip("\n") + "\n")
        text = "\n\n".join(parts)
        return Prompt(text, self._encode_open(text), "")

    def _encode(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return tuple(int(i) for i in ids)

    def _turn(self, text: str, message: str, as_parts: bool) -> str:
        """What the template puts behind the message to open the model's turn. Messages may speak of marks as well."""
        closed = self._apply(message, as_parts, add_generation_prompt=False)
        if text.startswith(closed) and text != closed:
            return text.removeprefix(closed)
        # The template does not ask whether to open a turn: the end of the message is marked.
        return self._apply(message + _END_OF_MESSAGE, as_parts).rpartition(_END_OF_MESSAGE)[2]

    def _render(self, message: str) -> tuple[str, bool]:
        """The rendered messages, and whether their contents had to be lists of parts.

        Templates of models that also read images may want such, and drop plain texts.
        """
        text = ""
        for as_parts in (False, True):
            text = self._apply(message, as_parts)
            if _holds(text, message) and _holds(text, self._system or ""):
                return text, as_parts
        if _holds(text, message):
            raise ModelError(
                "the model's chat template leaves the system prompt out of what the model reads: leave --system-prompt "
                "out"
            )
        raise ModelError(
            "the model's chat template leaves the prompt out of what the model reads, or changes it: choose another "
            "with --chat-template"
        )

    def _apply(self, message: str, as_parts: bool, **more: Any) -> str:
        contents = [("system", self._system), ("user", message)]
        messages = [
            {"role": role, "content": [{"type": "text", "text": content}] if as_parts else content}
            for role, content in contents
            if content is not None
        ]
        return apply_template(self._tokenizer, messages, self._dated_template, **self._arguments, **more)

    def _check_arguments(self) -> None:
        function = getattr(self._tokenizer, "apply_chat_template", None)
        taken = {"messages", "strftime_now", *(signature(function).parameters if function else ())}
        for name, value in self._arguments.items():
            if name in taken:
                raise ConfigError(f"--template-arg {name}: {name} is set by hyperscale: leave it out")
            if self.template is None:
                raise ConfigError(f"--template-arg {name}: prompts of this model are plain, without a chat template")
            if not re.search(rf"\b{re.escape(name)}\b", self.template):
                raise ConfigError(f"--template-arg {name}: the model's chat template has no argument {name!r}")
            # A template takes any text as true: "no" would switch on what it is meant to switch off.
            if isinstance(value, str) and (name == "enable_thinking" or value.lower() in _TRUTH_VALUES):
                raise ConfigError(f"--template-arg {name}={value}: write {name}=true or {name}=false")


def _count_last(ids: tuple[int, ...], end: int | None) -> int:
    """How many ids at the end of some are ``end``."""
    return sum(1 for _ in takewhile(lambda token: token == end, reversed(ids)))


def choose_template(tokenizer: Any, choice: str | None = None) -> str | None:
    """The Jinja template that prompts are made with; None if they are plain.

    Args:
        tokenizer: A transformers tokenizer.
        choice: As in `PromptFormat`.

    Raises:
        ConfigError: There is no such template.
        ModelError: The tokenizer has several, none of them its default, and none was chosen.
    """
    own = getattr(tokenizer, "chat_template", None) or None
    named: dict[str, str] = own if isinstance(own, dict) else {} if own is None else {"default": own}
    names = ", ".join(sorted(named)) or "none"
    if choice is None:
        if "default" in named or len(named) == 1:
            return named.get("default") or next(iter(named.values()))
        if not named:
            return None
        raise ModelError(
            f"the model has several chat templates ({names}) and none is the default: choose one with --chat-template"
        )
    if choice in named:
        return named[choice]
    if choice == PLAIN:
        return None
    path = Path(choice).expanduser()
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--chat-template {choice} cannot be read ({first_line(error)})") from None
    raise ConfigError(
        f"--chat-template {choice!r} is neither a template of this model ({names}) nor a file; {PLAIN!r} stands for a "
        "plain prompt"
    )


def apply_template(
    tokenizer: Any, messages: list[dict[str, Any]], template: str | None = None, remedy: str = _REMEDY, **more: Any
) -> str:
    """A conversation in a chat template, opened for the model's turn unless ``more`` says otherwise.

    Args:
        tokenizer: A transformers tokenizer.
        messages: The conversation.
        template: The template; the tokenizer's own if None.
        remedy: What to do if it fails, for the message.
        more: What the template is given besides.

    Raises:
        ModelError: The template refuses the conversation or cannot be read.
    """
    options: dict[str, Any] = {"add_generation_prompt": True, "tokenize": False, **more}
    try:
        return str(tokenizer.apply_chat_template(messages, chat_template=template, **options))
    except Exception as error:  # a template raises what its author chose, and jinja whatever stops it
        line = getattr(error, "lineno", None)
        place = f" in line {line}" if line else ""
        raise ModelError(f"the model's chat template fails{place}: {first_line(error)} ({remedy})") from None


def with_date(template: str, date: datetime) -> str:
    """A chat template for which the present is a given date.

    Templates ask transformers for the present by ``strftime_now``, which is replaced by a macro of that name.
    """
    if "strftime_now" not in template:
        return template
    parts = json.dumps([[name, date.strftime(name)] for name in _DIRECTIVES] + [["%%", "%"]], ensure_ascii=False)
    # The last tag keeps the line break that may follow it (`+`): it belongs to the template.
    return (
        "{%- macro strftime_now(format) -%}{%- set text = namespace(now=format) -%}"
        f"{{%- for name, value in {parts} -%}}"
        "{%- set text.now = text.now | replace(name, value) -%}{%- endfor -%}{{- text.now -}}{%- endmacro +%}"
    ) + template


def _holds(text: str, content: str) -> bool:
    """Whether a text holds another, whatever spaces a template adds or takes away."""
    return "".join(content.split()) in "".join(text.split())
