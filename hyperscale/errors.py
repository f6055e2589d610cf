"""Errors a user can cause and mend. Each message says what is wrong and what to do about it."""

import re


class HyperscaleError(Exception):
    """Base of all user errors; the command line prints the message on one line and exits with code 2."""


class ConfigError(HyperscaleError):
    """A run's configuration is inconsistent or malformed."""


class ModelError(HyperscaleError):
    """A model or checkpoint is unknown, missing or unusable."""


class MethodError(HyperscaleError):
    """A KV-compression method is unknown or cannot be used as asked."""


class BudgetError(HyperscaleError):
    """A budget cannot be parsed, or no configuration fits in it."""


class TaskError(HyperscaleError):
    """A task or its data is unknown, missing or malformed."""


class SandboxError(TaskError):
    """There is no sandbox here for programs that a model wrote."""


class ResultsError(HyperscaleError):
    """A results folder is missing, corrupt, in use, or belongs to another configuration."""


class EngineError(HyperscaleError):
    """An engine cannot run what it was asked to run."""


class VerificationError(HyperscaleError):
    """The compression that a run asked for did not take place."""


class RetrofitError(HyperscaleError):
    """A retrofit failed its own checks, or its inputs are unusable."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text that is not empty, for messages of one line; its type if it has no text.

    A line that ends in a colon says nothing without the next one, as those of transformers' checks of a configuration;
    nor does the first one of pydantic's, which counts mistakes: the first mistake stands for it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if re.match(r"\d+ validation errors? for ", lines[0]) and len(lines) > 1:
        end = next((i for i, line in enumerate(lines[1:], 2) if " [type=" in line), len(lines))
        return f"{lines[0]}: {' '.join(lines[1:end]).partition(' [type=')[0]}"
    count = next((i for i, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:count])
