"""Tasks of long prompts: their length, what is hidden in them, and what is asked."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter

import architectures
import pytest

from hyperscale import tasks
from hyperscale.errors import TaskError
from hyperscale.models.prompts import PromptFormat
from hyperscale.scoring import graders
from hyperscale.tasks.context.fitting import find_largest
from hyperscale.utils.paths import data_dir

NAMES = ["niah_single", "niah_multikey", "niah_multivalue", "vt", "cwe"]
FEW_WORDS = {"common_times": "6", "common": "3"}  # so that a list fits into few tokens

# A changed prompt, or changed grading, is another task: change the version in the task's file, and both entries here.
PINNED = {
    "niah_single": ("1.0", "b87cbc9c2b95bd3c"),
    "niah_multikey": ("1.0", "cc027c4e0fe20692"),
    "niah_multivalue": ("1.0", "ff7073df3715a98f"),
    "vt": ("1.0", "e9f0eb7bb1813b0b"),
    "cwe": ("1.0", "a264be8157529010"),
}


@pytest.fixture(scope="module")
def prompt_format():
    return PromptFormat(architectures.tokenizer())


def make(name, context, prompt_format, limit=4, data=None, **parameters):
    if name == "cwe":
        parameters = FEW_WORDS | parameters
    task = tasks.load(f"{name}@{context}").with_parameters(**parameters)
    return task.docs(limit, data, prompt_format)


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_prompt_changes_the_version(name):
    task = tasks.load(name)
    assert (task.version, hashlib.sha256(task.template.encode()).hexdigest()[:16]) == PINNED[name]


@pytest.mark.parametrize(
    ("name", "haystack"),
    [(name, text) for name in NAMES for text in ("prose", "filler") if (name, text) != ("cwe", "filler")],
)
def test_prompts_fill_their_length(name, haystack, prompt_format):
    """With a token for each byte a prompt lacks less than the next word of it."""
    for context in (1500, 3000):
        for doc in make(name, context, prompt_format, **({} if name == "cwe" else {"haystack": haystack})):
            missing = context - len(prompt_format.prompt(doc.prompt).ids)
            assert 0 <= missing < 30


@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_the_same_at_every_length_and_in_every_haystack(name, prompt_format):
    cases = [make(name, 1500, prompt_format), make(name, 3000, prompt_format)]
    if name != "cwe":  # a list of words has no haystack
        cases.append(make(name, 1500, prompt_format, haystack="filler"))
    for same in zip(*cases, strict=True):
        assert len({(doc.id, tuple(doc.target)) for doc in same}) == 1
        assert len({doc.prompt.split("\n")[-1] for doc in same}) == 1
        assert len({doc.prompt for doc in same}) == len(cases)
    assert len({tuple(doc.target) for doc in cases[0]}) == len(cases[0])
    assert [doc.target for doc in make(name, 1500, prompt_format, seed="1")] != [doc.target for doc in cases[0]]


@pytest.mark.parametrize(("name", "things", "values"), [(NAMES[0], 1, 1), (NAMES[1], 4, 1), (NAMES[2], 1, 4)])
def test_needles_are_there_once_and_answer_the_question(name, things, values, prompt_format):
    for doc in make(name, 2500, prompt_format, limit=10):
        numbers = {}
        for thing, number in re.findall(r"The secret number of (\S+) is (\d+)\.", doc.prompt):
            numbers.setdefault(thing, []).append(number)
        assert len(numbers) == things
        assert {len(of_thing) for of_thing in numbers.values()} == {values}
        asked = re.search(r"secret numbers? of (\S+)\?", doc.prompt).group(1)
        assert sorted(numbers[asked]) == sorted(doc.target)


def test_needles_stand_at_every_depth(prompt_format):
    """Problems take turns in ten depths, unless one is asked for."""
    depths = []
    for doc in make("niah_single", 6000, prompt_format, limit=10):
        text = doc.prompt.split("\n\n")[1]
        depths.append(text.index("The secret number") / len(text))
    assert depths == pytest.approx([0.05 + 0.1 * place for place in range(10)], abs=0.04)
    for doc in make("niah_single", 6000, prompt_format, depth="1"):
        assert doc.prompt.split("\n\n")[1].endswith(f"is {doc.target[0]}.")


@pytest.mark.parametrize("parameters", [{}, {"hops": "2", "chains": "3"}])
def test_variables_get_the_value_that_is_asked_for(parameters, prompt_format):
    """A reader who follows the assignments from the first to the last finds exactly the variables of the target."""
    for doc in make("vt", 3000, prompt_format, **parameters):
        values = {}
        for name, of, number in re.findall(r"VAR (\w+) = (?:VAR (\w+)|(\d+))\.", doc.prompt.split("\n\n")[1]):
            values[name] = values[of] if of else number
        asked = re.search(r"have the value (\d+)\?", doc.prompt).group(1)
        assert [name for name, value in values.items() if value == asked] == doc.target
        hops, chains = int(parameters.get("hops", 4)), int(parameters.get("chains", 1))
        assert len(values) == chains * (hops + 1)


def test_common_words_are_the_most_common(prompt_format):
    for doc in make("cwe", 4000, prompt_format):
        words = Counter(re.findall(r"^\d+\. (\S+)$", doc.prompt, re.MULTILINE))
        assert {word for word, _ in words.most_common(3)} == set(doc.target)
        assert {words[word] for word in doc.target} == {6}
        rest = [times for word, times in words.items() if word not in doc.target]
        assert sorted(set(rest)) in ([3], [1, 3], [2, 3])
        assert len(rest) > 20


def test_the_haystack_may_be_a_text_of_the_users(tmp_path, prompt_format):
    (tmp_path / "a.txt").write_text("Call me Ann. I went\nto sea.\n\nNo end", encoding="utf-8")
    (tmp_path / "b.md").write_text("A second file!", encoding="utf-8")
    (tmp_path / "licence").write_text((tmp_path / "a.txt").read_text())  # a file that is named needs no suffix
    for data in (tmp_path, tmp_path / "a.txt", tmp_path / "licence"):
        for doc in make("niah_single", 1000, prompt_format, data=str(data)):
            hay = re.sub(r"The secret number of \S+ is \d+\. ?", "", doc.prompt.split("\n\n")[1])
            assert "I went to sea. No end" in hay
            assert ("A second file!" in hay) == (data == tmp_path)


@pytest.mark.parametrize(
    "text",
    ["雨落在屋顶上。水流到街上！灯在晚上亮起？一天结束了。" * 100, "one line of a log without an end\n" * 300],
)
def test_a_text_without_latin_sentences_hides_a_needle_at_its_depth_too(tmp_path, prompt_format, text):
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    for place, doc in enumerate(make("niah_single", 3000, prompt_format, limit=10, data=str(file))):
        assert 2950 <= len(prompt_format.prompt(doc.prompt).ids) <= 3000
        shown = doc.prompt.split("\n\n")[1]
        assert shown.index("The secret number") / len(shown) == pytest.approx(0.05 + 0.1 * place, abs=0.1)


def test_one_prompt_is_tokenised_only_a_few_times(prompt_format):
    """However long it is: the amount of text is interpolated."""

    class Counting(PromptFormat):
        calls = 0

        def prompt(self, message):
            self.calls += 1
            return super().prompt(message)

    counting = Counting(architectures.tokenizer())
    tasks.load("niah_single@200000").docs(1, prompt_format=counting)
    assert counting.calls < 20


@pytest.mark.parametrize("most", [None, 3, 400])
def test_the_largest_amount_is_found(most):
    """Whatever the steps between amounts: plateaus, jumps, and a limit that is met exactly."""
    for step in (lambda amount: 7 * amount, lambda amount: amount // 3, lambda amount: amount + amount**2 // 50):
        for limit in (0, 1, 50, 699, 700, 701):
            best = max(n for n in range((most or 3000) + 1) if step(n) <= limit)
            assert find_largest(step, limit, most=most) == best


def test_a_tokenizer_that_reads_nothing_is_told_instead_of_text_without_end():
    """transformers makes one of a tokenizer of another kind, in a folder of a model type that it knows better."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    empty = PromptFormat(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({}, []))))
    with pytest.raises(TaskError, match="a prompt of 0 tokens: the model's tokenizer does not read them"):
        make("niah_single", 300, empty)


def test_mistakes_are_told(tmp_path, prompt_format):
    def refused(name="niah_single", context=1500, data=None, form=prompt_format, **parameters):
        with pytest.raises(TaskError) as caught:
            tasks.load(f"{name}@{context}").with_parameters(**parameters).docs(2, data, form)
        return str(caught.value)

    assert "at least" in refused(context=50)
    assert "--context" in refused(context=50)
    assert "a number of tokens" in refused(context="4k")
    assert "without @4096" in refused("aime24", 4096)
    assert "needs a model's tokenizer" in refused(form=None)
    assert "hops" in refused("vt", hop="3")
    assert "whole number" in refused("vt", hops="0")
    assert "prose or filler" in refused(haystack="essays")
    assert "share of the text" in refused(depth="2")
    assert "whole number" in refused(seed="-1")
    assert "no file or folder" in refused(data=str(tmp_path / "nothing"))
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    assert "needs sentences" in refused(data=str(tmp_path))
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    assert "UTF-8" in refused(data=str(tmp_path / "latin.txt"))
    assert "--task-param cwe@100.common_times=N and cwe@100.rare_times=N" in refused("cwe", context=100)
    assert "leave one out" in refused(data=str(tmp_path / "latin.txt"), haystack="filler")


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("The number is 1234567.", ["1234567"], True),
        ("1,234,567", ["1234567"], True),
        ("1\u202f234\u202f567", ["1234567"], True),
        ("12345678", ["1234567"], False),
        ("91234567", ["1234567"], False),
        ("HAWK1,hedge1 and\n  Goose1", ["HAWK1", "HEDGE1", "GOOSE1"], True),
        ("HAWK1 and GOOSE1", ["HAWK1", "HEDGE1", "GOOSE1"], False),
        ("HAWK12", ["HAWK1"], False),
        ("**amber  falcon**", ["Amber Falcon"], True),
        ("<think>1234567</think>I do not know.", ["1234567"], False),
        ("<think>hm</think>It is 1234567", ["1234567"], True),
        ("1234, 567", ["1234567"], False),
        ("a single text", "Single", True),
        ("The population is 1,234.", "1,234", True),
        ("It is 1234", "1,234", True),
        ("100,200,300", ["100", "200"], True),
        ("100,200,300", ["100200300"], True),
        ("They are 1,2,3.", ["1", "2", "3"], True),
        *((text, "5", False) for text in ("It is 2.5", "It is 5.75", "It is -5", "-5", "3/5", "5/3", "12:5")),
        *((text, "5", True) for text in ("It is 5.", "5", "(5)", "x=5, y", "pages 3-5", "5: yes")),
        ("It is -5", "-5", True),
        ("at 12:30", "30", False),
        ("答案是北京。", "北京", True),
        ("答えは東京です", "東京", True),
        ("Sa\u0303o Paulo", "São Paulo", True),
        ("I add up the numbers one by one.\n" * 2000 + "The capital is Paris.", "Paris", True),
    ],
)
def test_an_answer_contains_all_of_the_target(text, target, right):
    grader = graders.get("contains")
    answer = grader.extract(text)
    assert grader.correct(answer, target) == right


def test_no_text_is_no_answer():
    grader = graders.get("contains")
    assert grader.extract("<think>1234567") is None
    assert grader.extract(" \n") is None
    assert grader.equal_many([("A  b", "a b"), ("a", "b")]) == [True, False]


@pytest.mark.e2e
def test_lm_eval_reads_the_same_tasks(tmp_path):
    """In a process of its own: lm-eval is slow to import and would load torch into every other test."""
    architectures.write(tmp_path / "model", "qwen3")
    code = """
import json, sys
from lm_eval.tasks import TaskManager
from hyperscale import tasks
from hyperscale.models.prompts import PromptFormat
from hyperscale.utils.hub import load_tokenizer
form = PromptFormat(load_tokenizer(sys.argv[2]))
meta = {"context": 3000, "pretrained": sys.argv[2]}
manager = TaskManager(include_path=sys.argv[1], include_defaults=False, metadata=meta)
for name in json.loads(sys.argv[3]):
    task, ours = manager.load([name])["tasks"][name], tasks.load(f"{name}@3000")
    docs, mine = list(task.eval_docs), ours.docs(prompt_format=form)
    assert [task.doc_to_text(d) for d in docs] == [d.prompt for d in mine], name
    assert [json.loads(d["target"]) for d in docs] == [d.target for d in mine], name
    assert task.process_results(docs[0], [" and ".join(mine[0].target)]) == {"accuracy": 1.0}
    assert task.process_results(docs[0], ["nothing"]) == {"accuracy": 0.0}
"""
    arguments = [str(data_dir("tasks")), str(tmp_path / "model"), json.dumps(NAMES[:4])]
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
