"""What lm-eval's tasks ask of hyperscale: every setting is applied or refused, and nothing is cut in silence."""

import logging
from types import SimpleNamespace

import architectures
import pytest
import scripted
import tiny
from lm_eval.models.huggingface import HFLM
from tokenizers import processors

from hyperscale.engines.base import Request, Sampling
from hyperscale.errors import ConfigError, HyperscaleError
from hyperscale.lm_eval import HyperscaleLM

START = "<|start|>"


def requests(*arguments):
    return [SimpleNamespace(args=args, task_name="t", doc_id=i) for i, args in enumerate(arguments)]


def lm(path, **more):
    return HyperscaleLM(model=str(path), device="cpu", **{"batch_size": 4, **more})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return architectures.write(tmp_path_factory.mktemp("plain"), "qwen2")


@pytest.fixture(scope="module")
def starting(tmp_path_factory):
    """A checkpoint whose tokenizer puts a beginning of the sequence in front of every text, as Llama's."""
    folder = tmp_path_factory.mktemp("starting")
    words = architectures.tokenizer()
    words.add_special_tokens({"bos_token": START})
    start = (START, words.bos_token_id)
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A $B", special_tokens=[start]
    )
    model = tiny.model("llama", vocab=len(words), eos=words.eos_token_id, seed=1)
    model.config.bos_token_id = words.bos_token_id
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def settings(path, **gen_kwargs):
    return lm(path, max_length=64)._read_settings({"until": [], "max_gen_toks": 8, **gen_kwargs})[0]


# Settings of generation.


def test_every_setting_reaches_the_engine(plain):
    asked = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    found = settings(plain, **asked, seed=3, until=["a", "a", "", None, "b"])
    assert found == Sampling(
        temperature=0.7,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.2,
        stop=("a", "b"),
        stop_in_answer=True,
        seed=3,
    )
    ours = lm(plain)
    words = ours.tokenizer
    for shape in ({"top_k": 3}, {"min_p": 0.5}, {"repetition_penalty": 1.8}):
        given = {"until": [], "max_gen_toks": 30, "do_sample": True, "temperature": 1.0, **shape}
        (text,) = ours.generate_until(requests(("Light", given)), True)
        request = Request("t/0", 0, tuple(words.encode("Light")), 30, opened="")
        (chain,) = ours._engine.generate([request], Sampling(1.0, **shape))
        (other,) = ours._engine.generate([request], Sampling(1.0))
        assert text == chain.text != other.text


@pytest.mark.parametrize(
    ("asked", "temperature"),
    [
        ({}, 0),
        ({"do_sample": False}, 0),
        ({"do_sample": False, "temperature": 0.8}, 0),
        ({"temperature": 0.8}, 0.8),
        ({"do_sample": True, "temperature": "0.8"}, 0.8),
        ({"do_sample": True, "temperature": 0.0}, 0),
        ({"do_sample": None, "temperature": None, "top_k": None, "num_beams": None}, 0),
    ],
)
def test_when_tokens_are_drawn(plain, asked, temperature):
    assert settings(plain, **asked).temperature == temperature


def test_drawing_without_a_temperature_is_the_models_own(tmp_path):
    folder = architectures.write(tmp_path / "own", "qwen2")
    (folder / "generation_config.json").write_text('{"temperature": 0.4, "top_k": 7}')
    found = settings(folder, do_sample=True, top_p=0.5)
    assert (found.temperature, found.top_k, found.top_p) == (0.4, 7, 0.5)
    assert settings(folder).temperature == 0


def test_a_penalty_holds_for_greedy_decoding_as_in_transformers(plain):
    asked = {"until": [], "max_gen_toks": 24, "do_sample": False, "repetition_penalty": 1.6}
    ours = lm(plain)
    (text,) = ours.generate_until(requests(("Light is light", asked)), True)
    theirs = HFLM(pretrained=str(plain), device="cpu", dtype="float32", batch_size=1)
    (wanted,) = theirs.generate_until(requests(("Light is light", asked)), True)
    assert text == wanted
    (free,) = ours.generate_until(requests(("Light is light", {**asked, "repetition_penalty": 1.0})), True)
    assert free != text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_beams": 4}, "num_beams=4 of a task or --gen_kwargs is not supported"),
        ({"num_return_sequences": 2}, "num_return_sequences=2 .* is not supported"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size=3 .* is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty=0.5 .* is not supported"),
        ({"ignore_eos": True}, "ignore_eos=True .* is not supported"),
        ({"topk": 4}, "topk=4 .* is unknown: .* takes until, max_gen_toks, .*top_k"),
        ({"logit_bias": {"5": 1}}, "logit_bias=.* is unknown"),
        ({"stop": ["x"]}, "stop=.* is unknown: .* takes until"),
        ({"max_length": 40}, "max_length=40 .* counts the prompt as well: say with max_gen_toks"),
        ({"top_k": 2.5}, "top_k=2.5 .* must be a whole number"),
        ({"top_k": True}, "top_k=True .* must be a whole number"),
        ({"top_k": -5}, "top_k must be at least 0"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": "most"}, "top_p='most' .* must be a number"),
        ({"min_p": 2}, "min_p must be between 0 and 1"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"temperature": "hot"}, "temperature='hot' .* must be a number"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"temperature": -1, "do_sample": True}, "temperature must be at least 0"),
        ({"do_sample": "yes"}, "do_sample='yes' .* must be true or false"),
        ({"seed": "x"}, "seed='x' .* must be a whole number"),
        ({"until": 5}, "until=5 .* must be a text or a list of texts"),
        ({"until": ["a", 5]}, "until=.* must be a text or a list of texts"),
        ({"max_gen_toks": 0}, "max_gen_toks=0 .* must be at least 1"),
        ({"max_gen_toks": -5}, "max_gen_toks=-5 .* must be at least 1"),
        ({"max_gen_toks": "many"}, "max_gen_toks='many' .* must be a whole number"),
        ({"max_gen_toks": None, "max_new_tokens": "many"}, "max_new_tokens='many' .* must be a whole number"),
    ],
)
def test_the_rest_is_refused_by_name(plain, asked, message):
    with pytest.raises(ConfigError, match=message) as error:
        settings(plain, **asked)
    assert "\n" not in str(error.value)


def test_values_without_effect_may_stand_in_a_task(plain):
    asked = {"num_beams": 1, "early_stopping": False, "length_penalty": 1.0, "use_cache": True, "top_k": -1}
    assert settings(plain, **asked) == settings(plain)


def test_a_mistake_shows_before_anything_is_generated(plain, monkeypatch):
    ours = lm(plain)
    monkeypatch.setattr(ours, "_engine", None)
    good, bad = {"until": [], "max_gen_toks": 4}, {"until": [], "max_gen_toks": 4, "num_beams": 3}
    with pytest.raises(ConfigError, match="num_beams=3"):
        ours.generate_until(requests(("a", good), ("b", bad)), True)


# Room.


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("tokens", [64, 65, 2048])
def test_no_room_for_a_prompt_is_an_error(plain, name, tokens):
    ours = lm(plain, max_length=64)
    with pytest.raises(ConfigError, match=f"max_gen_toks={tokens} leaves no room for a prompt in max_length=64"):
        ours.generate_until(requests(("a prompt", {"until": [], name: tokens})), True)


def test_a_length_that_no_task_states_needs_room_too(plain):
    with pytest.raises(ConfigError, match="max_gen_toks=256 leaves no room for a prompt in max_length=64"):
        lm(plain, max_length=64).generate_until(requests(("a prompt", {"until": []})), True)
    with pytest.raises(ConfigError, match=r"max_length=100000 .* beyond the model's context of 4,096"):
        lm(plain, max_length=100_000)


def test_a_long_prompt_is_cut_from_the_left_as_lm_evals_own_model_does_and_said_so_once(plain, caplog):
    asked = {"until": [], "max_gen_toks": 12}
    prompt = "".join(chr(97 + n % 26) for n in range(70))
    ours = lm(plain, max_length=40)
    with caplog.at_level(logging.WARNING, logger="lm_eval"):
        texts = ours.generate_until(requests((prompt, asked), ("short", asked), (prompt, {**asked, "seed": 1})), True)
        again = ours.generate_until(requests((prompt, asked)), True)
    told = [record.getMessage() for record in caplog.records if "do not fit" in record.getMessage()]
    assert told == [
        "2 of 3 prompts do not fit into max_length=40 beside what is to be generated or scored: they are cut from the "
        "left, as by lm-eval's own models"
    ]
    theirs = HFLM(pretrained=str(plain), device="cpu", dtype="float32", batch_size=1, max_length=40)
    assert texts[:2] == theirs.generate_until(requests((prompt, asked), ("short", asked)), True)
    assert again == texts[:1] == [ours.generate_until(requests((prompt[-28:], asked)), True)[0]]


# Scores.

TEXTS = ("light passes a narrow slit", "a", "", " ", "two\n\nlines", START, f"{START}it begins", f"{START}{START}twice")


@pytest.mark.parametrize("max_length", [8, 64])
def test_a_text_begins_once(starting, max_length):
    """Rolling scores are those of lm-eval's own model where its tokenizer adds no second beginning."""
    ours = lm(starting, max_length=max_length)
    theirs = HFLM(
        pretrained=str(starting),
        device="cpu",
        dtype="float32",
        batch_size=2,
        max_length=max_length,
        add_bos_token=False,
    )
    texts = [text for text in TEXTS if not text.startswith(START)]
    asked = requests(*((text,) for text in texts))
    found = ours.loglikelihood_rolling(asked, disable_tqdm=True)
    assert found == pytest.approx(theirs.loglikelihood_rolling(asked, disable_tqdm=True), abs=1e-3)
    # The sum of a text's own tokens, which is what follows the beginning.
    whole = lm(starting).loglikelihood(requests(*(("", text) for text in texts)), disable_tqdm=True)
    if max_length == 64:
        assert found == pytest.approx([score for score, _ in whole], abs=1e-3)
    begun = ours.loglikelihood_rolling(requests((START,), (f"{START}it begins",), ("it begins",)), disable_tqdm=True)
    assert begun[0] == 0
    assert begun[1] == pytest.approx(begun[2], abs=1e-5)
    assert begun[1] != 0


def test_a_tokenizer_without_a_beginning_scores_as_lm_evals_own_model(plain):
    asked = requests(*((text,) for text in TEXTS))
    theirs = HFLM(pretrained=str(plain), device="cpu", dtype="float32", batch_size=2, max_length=8)
    found = lm(plain, max_length=8).loglikelihood_rolling(asked, disable_tqdm=True)
    assert found == pytest.approx(theirs.loglikelihood_rolling(asked, disable_tqdm=True), abs=1e-3)


@pytest.mark.parametrize("kind", ["plain", "starting"])
def test_contexts_and_continuations_of_every_kind(kind, request):
    folder = request.getfixturevalue(kind)
    ours = lm(folder)
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=2)
    same = [("Light", " is fast"), ("Light ", "is fast"), ("", "Light"), ("", " Light"), ("\n", "a"), (" a", "b")]
    if kind == "plain":
        same.remove(("\n", "a"))  # a context without a token, for which lm-eval's own model has an assertion
    found = ours.loglikelihood(requests(*same), disable_tqdm=True)
    wanted = theirs.loglikelihood(requests(*same), disable_tqdm=True)
    assert [score for score, _ in found] == pytest.approx([score for score, _ in wanted], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    # A blank context is none, and its spaces belong to the continuation.
    for space in (" ", "\n", " \n\t "):
        blank, none = ours.loglikelihood(requests((space, "Light"), ("", f"{space}Light")), disable_tqdm=True)
        assert blank == pytest.approx(none)
    assert ours.loglikelihood(requests(("Light", ""), ("", ""), (" ", "")), disable_tqdm=True)[:2] == [(0.0, True)] * 2


def test_a_blank_prompt_is_generated_from(plain):
    asked = {"until": [], "max_gen_toks": 3}
    texts = lm(plain).generate_until(requests(("", asked), (" ", asked)), True)
    assert len(texts) == 2


# Stop strings.


def written(tmp_path, script, until, prompt="Q", **more):
    folder = scripted.write(tmp_path / "model", script, **more)
    ours = lm(folder)
    text = ours.apply_chat_template([{"role": "user", "content": prompt}])
    (found,) = ours.generate_until(requests((text, {"until": until, "max_gen_toks": 40})), True)
    return found


OPENED = scripted.TEMPLATE + "{{ '<think>\\n' }}"


@pytest.mark.parametrize("special", [(), ("</think>",)])
def test_stop_strings_of_a_task_leave_a_thinking_alone(tmp_path, special):
    script = ["Question:", " one", "\n\n", "two", "</think>", "\n\n\n", "four", "Question: next", "five"]
    found = written(tmp_path, script, ["Question:", "\n\n"], template=OPENED, after=("\n",), special=special)
    assert found == "Question: one\n\ntwo</think>\n\n\nfour"


def test_a_thinking_that_the_model_opens_itself(tmp_path):
    script = ["<think>", "Question:", "two", "</think>", "four", "Question: next", "five"]
    assert written(tmp_path, script, ["Question:"]) == "<think>Question:two</think>four"


def test_a_model_that_does_not_think_stops_where_the_task_says(tmp_path):
    script = ["\n\n", "one", "Question:", "two", "</think>", "three"]
    assert written(tmp_path / "a", script, ["Question:"]) == "\n\none"
    assert written(tmp_path / "b", script, "\n\n") == ""


def test_a_thinking_that_is_cut_off_is_shown_as_one(tmp_path):
    """So that nobody takes what stands in it for an answer."""
    script = [f"{n}," for n in range(60)]
    found = written(tmp_path, script, ["never"], template=OPENED, after=("\n",))
    assert found.startswith("<think>0,1,2,")


def test_a_mark_of_thinking_may_be_a_stop_string(tmp_path):
    script = ["one", "</think>", "two"]
    found = written(tmp_path, script, ["</think>"], template=OPENED, after=("\n",))
    assert found == "<think>one"


@pytest.mark.parametrize("until", [["<|stop|>"], "<|stop|>", ["never", "<|stop|>\n"], ["b<|stop|>"]])
def test_a_stop_string_may_have_a_special_token(tmp_path, until):
    found = written(tmp_path, ["a", "b", "<|stop|>", "\n", "c"], until, special=("<|stop|>",))
    assert found == ("a" if until == ["b<|stop|>"] else "ab")


def test_the_end_of_the_sequence_may_be_a_stop_string(tmp_path):
    assert written(tmp_path, ["a", "b"], [scripted.END]) == "ab"


def test_the_end_of_thinking_may_be_left_out_as_in_lm_evals_own_model(tmp_path):
    folder = scripted.write(tmp_path / "model", ["one", "</think>", "\n", "two", "\n\n", "three"])
    asked = {"until": ["\n\n"], "max_gen_toks": 40}
    ours = lm(folder, think_end_token="</think>")
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, think_end_token="</think>")
    found = ours.generate_until(requests((f"Q{scripted.TURN}", asked)), True)
    assert found == ["two"]
    assert theirs.generate_until(requests((f"Q{scripted.TURN}", {**asked, "until": ["three"]})), True) == ["two\n\n"]


# Model arguments.


def test_thinking_can_be_turned_off(tmp_path):
    template = scripted.TEMPLATE + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    folder = scripted.write(tmp_path / "model", ["a"], template=template)
    message = [{"role": "user", "content": "Q"}]
    assert not lm(folder).apply_chat_template(message).endswith("</think>\n\n")
    text = lm(folder, enable_thinking=False).apply_chat_template(message)
    assert text.endswith("</think>\n\n")
    assert lm(folder)._opened(text) == ""
    assert lm(folder)._opened(f"{scripted.TURN}<think>\n") == "<think>"
    assert lm(folder)._opened("Write your thoughts after <think>, then answer.") == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda:17"}, "no CUDA device here|there is no cuda:17"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"num_beams": 4}, "num_beams"),
        ({"batch_size": "x"}, r"batch_size='x' \(--batch_size\) must be a whole number"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"max_length": "x"}, "max_length='x' in --model_args must be a whole number"),
        ({"max_length": -4}, "max_length=-4 in --model_args must be at least 1"),
        ({"max_length": 5000}, "beyond the model's context of 4,096"),
        ({"seed": "x"}, "seed='x' in --model_args must be a whole number"),
        ({"method": "window", "cr": "x"}, "cr='x' in --model_args must be a number"),
    ],
)
def test_model_arguments_that_make_no_sense(plain, arguments, message):
    with pytest.raises(HyperscaleError, match=message):
        HyperscaleLM(**{"model": str(plain), "method": "vanilla", "device": "cpu", **arguments})


def test_float16(plain):
    score, _ = lm(plain, dtype="float16").loglikelihood(requests(("Light", " is")), disable_tqdm=True)[0]
    wanted, _ = lm(plain).loglikelihood(requests(("Light", " is")), disable_tqdm=True)[0]
    assert score != wanted
    assert score == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": "x"}, "model=NAME"),
        ({"method": "nope"}, "unknown method 'nope'"),
        ({"enable_thinking": "maybe"}, "must be true or false"),
        ({"enable_thinking": False}, "no argument enable_thinking"),
        ({"think_end_token": 151668}, "must be a text"),
    ],
)
def test_arguments_of_the_model_are_refused_before_anything_is_generated(plain, arguments, message):
    with pytest.raises(HyperscaleError, match=message):
        lm(plain, **arguments)
