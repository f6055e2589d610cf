"""Prompts: chat templates of the kinds that there are, their arguments and dates, and models without one."""

from datetime import datetime

import architectures
import pytest
from tokenizers import processors

from hyperscale.errors import ConfigError, ModelError
from hyperscale.models.prompts import PromptFormat, choose_template

MESSAGES = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
TURNS = MESSAGES + "<|assistant|>"
#: Templates in the manner of the families, and what they leave open.
OPENS = {
    "R1: opens the thinking": (TURNS + "<think>\n", "<think>"),
    "Qwen3: the model opens it": (
        TURNS + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",
        "",
    ),
    "DeepSeek-V3.1: closes what was not opened": (TURNS + "</think>", ""),
    "Magistral: speaks of its marks": ("<|system|>Write [THINK]thoughts[/THINK]." + TURNS, ""),
    "a system prompt that opens one": ("<|system|>Start with <think>." + TURNS, ""),
    "gpt-oss": (TURNS + "<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
    "Llama": ("{{ bos_token }}" + TURNS, ""),
    "opens where it is asked to": (
        MESSAGES + "{% if add_generation_prompt %}<|assistant|><think>{% endif %}",
        "<think>",
    ),
    "GLM: adds to the message": (
        MESSAGES + "{{ '/nothink' }}{% if add_generation_prompt %}<|assistant|>\n<think></think>{% endif %}",
        "",
    ),
    "prefills the thinking": (TURNS + "<think>\nOkay, so", "<think>"),
    "EXAONE Deep": (TURNS + "<thought>\n", "<thought>"),
}


def tokenizer(template):
    made = architectures.tokenizer()
    made.chat_template = template
    return made


@pytest.mark.parametrize(("template", "opened"), OPENS.values(), ids=OPENS)
def test_what_the_template_opens(template, opened):
    words = tokenizer(template)
    prompt = PromptFormat(words).prompt("What is <think> for?")
    assert prompt.opened == opened
    assert words.decode(prompt.ids, skip_special_tokens=False).endswith(prompt.text[-20:])


def test_an_argument_closes_the_thinking():
    template = TURNS + "<think>{% if not enable_thinking | default(true) %}</think>{% endif %}"
    words = tokenizer(template)
    assert PromptFormat(words).prompt("a").opened == "<think>"
    assert PromptFormat(words, arguments={"enable_thinking": False}).prompt("a").opened == ""


def test_marks_of_the_models_own():
    words = tokenizer(TURNS + "<plan>")
    assert PromptFormat(words).prompt("a").opened == ""
    assert PromptFormat(words, marks=("<plan>", "</plan>")).prompt("a").opened == "<think>"
    words.add_tokens(["<|think_start|>", "<|think_end|>"])
    words.chat_template = TURNS + "<|think_start|>"
    found = PromptFormat(words)
    assert found.marks == ("<|think_start|>", "<|think_end|>")
    assert found.prompt("a").opened == "<think>"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ raise_exception('Conversation roles must alternate') }}", "Conversation roles must alternate"),
        (TURNS + "{% if %}", "line 1: Expected an expression"),
        ("{{ messages[7]['content'] }}", "no element 7"),
        ("{{ messages[0]['content'] + 7 }}", "can only concatenate str"),
        ("{{ messages | unheard_of }}", "unheard_of"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_templates_that_fail_are_one_typed_line(template, fault):
    with pytest.raises(ModelError, match=rf"chat template fails.*{fault}.*--chat-template none") as caught:
        PromptFormat(tokenizer(template)).prompt("hello")
    assert "\n" not in str(caught.value)


def test_what_a_template_leaves_out_is_an_error():
    with pytest.raises(ModelError, match="leaves the prompt out"):
        PromptFormat(tokenizer("<|user|>hi")).prompt("What is 2 + 2?")
    with pytest.raises(ModelError, match="or changes it"):
        PromptFormat(tokenizer("{% for m in messages %}{{ m['content'] | e }}{% endfor %}")).prompt("Is 2 < 3?")
    drops = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ModelError, match=r"leaves the system prompt out.*--system-prompt"):
        PromptFormat(tokenizer(drops), system="Be brief.").prompt("hello")
    assert PromptFormat(tokenizer(drops)).prompt("hello").text == "hello"
    trims = "{% for m in messages %}{{ m['content'] | trim }} {% endfor %}"
    assert PromptFormat(tokenizer(trims), system=" Be brief.\n").prompt("hello \n").text == "Be brief. hello "


def test_templates_that_read_parts_get_parts():
    parts = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }};{% endfor %}{% endfor %}<think>"
    prompt = PromptFormat(tokenizer(parts), system="Be brief.").prompt("hello")
    assert (prompt.text, prompt.opened) == ("Be brief.;hello;<think>", "<think>")


def test_several_templates():
    several = {"tool_use": "tools " + TURNS, "rag": "rag " + TURNS}
    with pytest.raises(ModelError, match=r"several chat templates \(rag, tool_use\).*--chat-template"):
        choose_template(tokenizer(several))
    assert choose_template(tokenizer(several), "rag") == several["rag"]
    assert choose_template(tokenizer(several | {"default": TURNS})) == TURNS
    assert choose_template(tokenizer({"rag": TURNS})) == TURNS
    with pytest.raises(ConfigError, match=r"--chat-template 'reg' is neither .*\(rag, tool_use\)"):
        choose_template(tokenizer(several), "reg")


def test_a_template_from_a_file(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("own " + TURNS)
    assert PromptFormat(tokenizer(None), template=str(path)).prompt("a").text == "own <|user|>a<|assistant|>"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"own.jinja cannot be read"):
        choose_template(tokenizer(None), str(path))


@pytest.mark.parametrize("template", [None, "", {}])
def test_base_models_get_a_plain_prompt(template):
    words = tokenizer(template)
    found = PromptFormat(words)
    assert found.is_plain
    prompt = found.prompt("What is 2 + 2?")
    assert (prompt.text, prompt.opened) == ("What is 2 + 2?\n", "")
    assert words.decode(prompt.ids) == prompt.text
    assert PromptFormat(words, system="Be brief.").prompt("a\n").text == "Be brief.\n\na\n"
    assert PromptFormat(tokenizer(TURNS), template="none").is_plain


def test_a_plain_prompt_begins_but_does_not_end_as_the_tokenizer_has_it():
    class Ending:
        eos_token_id, chat_template = 2, None

        def encode(self, text, add_special_tokens):
            return [1, *map(ord, text), 2] if add_special_tokens else [*map(ord, text)]

    assert PromptFormat(Ending()).prompt("a").ids == (1, ord("a"), ord("\n"))


def test_texts_that_are_scored_or_rendered_have_no_end_of_the_tokenizers():
    """Of one that ends every text (add_eos_token): its end would stand between a context and what follows it."""
    words = tokenizer(None)
    plain = PromptFormat(words)
    wanted = plain.from_text("ab").ids, plain.encode_pair("Q: a", " b"), plain.prompt("ab").ids
    closed = words.encode(f"ab{architectures.END}")
    end = words.eos_token_id
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {architectures.END}", special_tokens=[(architectures.END, end)]
    )
    assert words.encode("ab")[-1] == end
    found = PromptFormat(words)
    assert (found.from_text("ab").ids, found.encode_pair("Q: a", " b"), found.prompt("ab").ids) == wanted
    # What a text itself ends in stays.
    assert found.from_text(f"ab{architectures.END}").ids == tuple(closed)
    assert found.encode_pair("ab", architectures.END) == (wanted[0], (end,))


def test_arguments_that_no_template_takes():
    with pytest.raises(ConfigError, match="no argument 'enable_thinkin'"):
        PromptFormat(tokenizer(OPENS["Qwen3: the model opens it"][0]), arguments={"enable_thinkin": False})
    with pytest.raises(ConfigError, match="prompts of this model are plain"):
        PromptFormat(tokenizer(None), arguments={"enable_thinking": False})
    for name in ("messages", "add_generation_prompt", "tokenize", "tools"):
        with pytest.raises(ConfigError, match=f"{name} is set by hyperscale"):
            PromptFormat(tokenizer(TURNS), arguments={name: "x"})


#: As Llama 3's template has it.
DATED = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}\n"
    "Today Date: {{ date_string }}\n"
) + TURNS


def test_a_prompt_is_that_of_its_date():
    words, day = tokenizer(DATED), datetime(2026, 2, 3, 4, 5, 6)
    assert "Today Date: 03 Feb 2026\n" in PromptFormat(words, date=day).prompt("a").text
    today = datetime.now().strftime("%d %b %Y")
    rendered = words.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True)
    now = PromptFormat(words).prompt("a").text
    if today == datetime.now().strftime("%d %b %Y"):  # not over midnight
        assert now == rendered
    fixed = PromptFormat(words, date=day, arguments={"date_string": "1 Jan 2000"})
    assert "Today Date: 1 Jan 2000\n" in fixed.prompt("a").text


def test_all_of_a_date_can_be_asked_for():
    day = datetime(2026, 2, 3, 4, 5, 6)
    form = "%A %B %-d %d %m %Y %y %H:%M:%S %I%p %-I %j 100%%"
    template = f"{{{{ strftime_now('{form}') }}}}" + TURNS
    assert PromptFormat(tokenizer(template), date=day).prompt("a").text.startswith(day.strftime(form) + "<|user|>")
    inside = "{% macro head() %}{{ strftime_now('%Y') }}{% endmacro %}{{ head() }}" + TURNS
    assert PromptFormat(tokenizer(inside), date=day).prompt("a").text.startswith("2026<|user|>")
