"""Makes a run's prompts as its settings ask for."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from hyperscale import models

if TYPE_CHECKING:
    from hyperscale.models.prompts import PromptFormat
    from hyperscale.run.config.resolve import ResolvedConfig


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


def prompt_notes(prompt_format: "PromptFormat", config: "ResolvedConfig") -> list[str]:
    """What is to be said about a run's prompts."""
    if not prompt_format.is_plain:
        return []
    reason = "as --chat-template asks for" if config.chat_template else f"{config.model} has no chat template"
    return [f"prompts are plain text, {reason}: what a model of chats would do with them is not measured"]
