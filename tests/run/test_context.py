"""No chain leaves the model's context: lengths that a user named are refused, others are left out with a note."""

import json
import shutil

import architectures
import checkpoints
import commandline
import pytest
from safetensors.torch import load_file, save_file

from hyperscale import methods, results
from hyperscale.engines.base import Request, Sampling, Steering
from hyperscale.engines.loading import load_model
from hyperscale.engines.torch.engine import TorchEngine
from hyperscale.errors import EngineError
from hyperscale.run import context as run_context

TASK = ("--task", "mini_aime", "--limit", 2, "--budget", "all", "--grid", "one")
MODES = [(), ("--dry-run",)]


def edit(folder, **keys):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(8,))
    for name in ("base", "dms8"):
        edit(folder / name, max_position_embeddings=600)
    return folder


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lengths", ["1024", "256,1024", "600"])
def test_lengths_that_a_user_named_are_refused(run, weights, tmp_path, mode, lengths):
    result = run("run", "--model", weights, *TASK, "--length", lengths, "--out", "out", *mode)
    commandline.fails(result, f"--length {lengths.rpartition(',')[2]}", "context", "600 tokens", "choose at most")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", MODES)
def test_other_lengths_are_left_out_with_a_note(run, weights, tmp_path, mode):
    code, out, err = run("run", "--model", weights, *TASK, "--out", "out", *mode)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert "L = 1,024, 2,048 left out: the context of" in text
    assert "600 tokens" in text
    if not mode:
        (stored,) = results.read(tmp_path / "out")
        assert {point.L for point in stored.points()} == {256, 512}
        assert {sample.L for sample in stored.samples} == {512}


@pytest.mark.parametrize("mode", MODES)
def test_the_largest_length_that_fits_takes_the_base_lengths_place(run, weights, mode):
    _, out, _ = run("run", "--model", weights, *TASK, "--out", "out", *mode)
    assert "the base point of mini_aime has L = 512" in " ".join(out.split())


@pytest.mark.parametrize("mode", MODES)
def test_nothing_fits(run, weights, tmp_path, mode):
    folder = shutil.copytree(weights, tmp_path / "short")
    for size, text in ((200, "no length of mini_aime"), (8, "nothing can be generated")):
        edit(folder / "base", max_position_embeddings=size)
        commandline.fails(run("run", "--model", folder, *TASK, "--out", "out", *mode), text, f"{size} tokens")


@pytest.mark.parametrize("mode", MODES)
def test_a_forced_answer_needs_room_of_its_own(run, weights, tmp_path, mode):
    options = ("run", "--model", weights, *TASK, "--length", 400)
    assert run(*options, "--force-answer", 20, "--out", "a", *mode)[0] == 0
    commandline.fails(run(*options, "--force-answer", 200, "--out", "b", *mode), "a forced answer", "choose at most")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 600, "rope_theta": 1e4},
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_scaled_rope_extends_the_context(run, weights, tmp_path, rope, mode):
    folder = shutil.copytree(weights, tmp_path / "scaled")
    edit(folder / "base", max_position_embeddings=600, rope_parameters=rope)
    assert run("run", "--model", folder, *TASK, "--length", 1024, "--out", "out", *mode)[0] == 0
    commandline.fails(run("run", "--model", folder, *TASK, "--length", 1200, "--out", "b", *mode), "1,200 tokens")


@pytest.mark.parametrize(("model", "beyond"), [("qwen3-8b", 40960), ("llama-3.1-8b", 131072), ("qwen-r1-7b", 131072)])
def test_known_models_are_planned_within_their_context_without_their_files(run, model, beyond):
    options = ("run", "--model", model, "--task", "aime24", "--dry-run", "--budget", "all")
    assert run(*options)[0] == 0
    commandline.fails(run(*options, "--length", beyond), f"{beyond:,} tokens", "choose at most")


def test_a_plan_of_an_earlier_version_is_not_continued_beyond_it(run, weights, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(run_context, "smallest_context", lambda paths: None)
        earlier.setattr("hyperscale.run.prepare.smallest_context", lambda paths: None)
        run("run", "--model", weights, *TASK, "--out", "out")
    commandline.fails(run("run", "--model", weights, *TASK, "--out", "out"), "plan has L", "--out")


def test_the_engine_refuses_requests_beyond_the_context(tmp_path):
    folder = architectures.write(tmp_path, "llama")
    edit(folder, max_position_embeddings=64)
    model, tokenizer = load_model(folder)
    prompt = tuple(tokenizer.encode("a" * 14))

    def generate(L, **more):
        engine = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1))
        request = Request("p", 0, prompt, L, forced_ids=more.pop("forced", ()))
        return next(engine.generate([request], Sampling(temperature=0, **more)))

    assert len(generate(50).token_ids) <= 50
    assert generate(51, forced=(5,) * 51).prompt_tokens == 14  # the last one is scored, not processed
    for L, more in ((51, {}), (52, {"forced": (5,) * 52})):
        with pytest.raises(EngineError, match=r"may need .* context has 64"):
            generate(L, **more)


def test_the_engine_leaves_room_for_a_branch(weights):
    model, tokenizer = load_model(weights / "base")
    engine = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1))
    for answer, fits in ((9, True), (10, False)):
        sampling = Sampling(temperature=0, steering=Steering(answer=answer))
        requests = engine.generate([Request("p", 0, (5,) * 90, 500)], sampling)
        if fits:
            assert len(next(requests).token_ids) <= 500
        else:
            with pytest.raises(EngineError, match=r"may need 601 tokens"):
                next(requests)


def test_prompts_of_another_vocabulary_are_refused(tmp_path):
    model, tokenizer = load_model(architectures.write(tmp_path, "qwen2"))
    engine = TorchEngine(model, tokenizer, methods.create("vanilla", cr=1))
    with pytest.raises(EngineError, match=r"token 999, and the model's embedding has 259 rows"):
        next(engine.generate([Request("p", 0, (1, 999), 4)], Sampling(temperature=0)))


def test_a_tokenizer_of_another_model_is_refused_before_a_run_has_a_folder(run, weights, tmp_path):
    folder = shutil.copytree(weights, tmp_path / "small")
    edit(folder / "base", vocab_size=20)
    tensors = load_file(folder / "base" / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:20].contiguous()
    save_file(tensors, folder / "base" / "model.safetensors", {"format": "pt"})
    commandline.fails(run("run", "--model", folder, *TASK, "--out", "out"), "writes token", "vocab_size")
    assert not (tmp_path / "out").exists()
