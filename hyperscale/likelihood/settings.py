"""Declares the settings of a measurement of likelihood once: options of the command and arguments in Python follow."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hyperscale.errors import ConfigError
from hyperscale.retrofit.settings import describe_fault
from hyperscale.utils.settings import find_field, setting

_FROM_1 = Field(ge=1, le=1024, allow_inf_nan=False)


class LikelihoodSettings(BaseModel):
    """What ``hyperscale loglik`` takes beside the texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = setting(
        "mini", "Name (`hyperscale models`), local folder or hub id.", group="Model, methods and ratios"
    )
    revision: str | None = setting(None, "Branch, tag or commit of a hub id.", unset="the hub's main branch")
    methods: tuple[str, ...] = setting(
        ("window",), "Methods, e.g. dms,tova,window; the full cache is always there.", option="method", min_length=1
    )
    crs: tuple[Annotated[float, _FROM_1], ...] = setting(
        (2.0, 4.0), "Compression ratios of all methods but vanilla, e.g. 2,4.", option="cr", min_length=1
    )
    params: dict[str, dict[str, Any]] = setting(
        {},
        "Parameter of a method (`hyperscale methods`), e.g. window.recent=32",
        option="method-param",
        example="window.recent=32",
    )
    rule: Literal["proportional", "fixed", "own"] = setting(
        "proportional",
        "Rule of the budgets, of all methods that have one; own is each method's.",
    )
    length: int = setting(
        512, "Tokens of a document; longer texts are cut into several.", ge=2, le=2**24, group="Documents"
    )
    prompt_tokens: int = setting(
        1,
        "First tokens of a document that are prefilled as a prompt and not scored.",
        ge=1,
        le=2**24,
    )
    documents: int | None = setting(None, "Only N documents, drawn at random.", unset="all", ge=1, le=10**9)
    seed: int = setting(0, "Seed of that draw, and of the noise of methods that have any.", ge=0, lt=2**63)
    device: str = setting("auto", "Where the model runs.", choices=("auto", "cpu", "cuda", "cuda:N"), group="Engine")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting("auto", "Type of the weights.")
    batch_size: int | None = setting(
        None, "Documents that are scored together; changes no result.", unset="the model's", ge=1, le=65536
    )

    @model_validator(mode="after")
    def _leave_something_to_score(self) -> Self:
        if self.prompt_tokens >= self.length:
            raise ValueError(
                f"--prompt-tokens {self.prompt_tokens} leaves nothing to score of --length {self.length}: lower it"
            )
        return self

    @model_validator(mode="after")
    def _name_each_once(self) -> Self:
        for option, values in (("--method", self.methods), ("--cr", self.crs)):
            if len(set(values)) < len(values):
                raise ValueError(f"{option} names something twice: name each once")
        return self

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The settings that values make, by the names of fields or options; what is None has its default.

        Raises:
            ConfigError: A name is unknown, or a value makes no sense.
        """
        fields = {find_field(cls, name): value for name, value in values.items() if value is not None}
        for name in ("methods", "crs"):  # lists may be lists, single values or texts with commas
            if isinstance(fields.get(name), str):
                fields[name] = [part.strip() for part in fields[name].split(",")]
            elif isinstance(fields.get(name), int | float):
                fields[name] = [fields[name]]
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ConfigError(describe_fault(error, cls)) from None
