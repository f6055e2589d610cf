import json
from pathlib import Path

import pytest

from hyperscale import models
from hyperscale.errors import BudgetError, ConfigError, MethodError, ModelError, TaskError
from hyperscale.methods.arm import Arm
from hyperscale.models.checkpoint import shape_of
from hyperscale.planning.budget import Budget
from hyperscale.planning.grid import Grid
from hyperscale.results import manifest
from hyperscale.run.config import load, resolve, schema
from hyperscale.run.config.engine_choice import with_engine
from hyperscale.utils.validation import validate
from hyperscale.utils.yaml_files import read_yaml

#: Each line holds the one before it twenty times.
BOMB = "".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}' if i else '1'] * 20)}]\n" for i in range(6))


def resolved(**values):
    return resolve.resolve_config(load.make_config(values))


def test_defaults_of_the_built_in_model():
    found = resolved()
    assert found.tasks == ("mini_aime", "mini_gpqa", "mini_lcb")
    assert (found.methods, found.budget, found.grid.name) == (("vanilla",), Budget("kv_reads", 8, True), "mini")
    assert (found.temperature, found.top_p, found.seeds) == (0.8, 1.0, (0,))


def test_methods_meet_at_the_crs_of_the_dms_checkpoints():
    found = resolved(methods=["vanilla", "dms", "window"])
    assert found.crs == (2.0, 4.0, 8.0)
    assert found.arms == [
        Arm("vanilla", 1.0),
        *(Arm(name, cr) for name in ("dms", "window") for cr in (2.0, 4.0, 8.0)),
    ]
    assert resolved(methods=["dms"], crs=[8]).crs == (8.0,)
    assert resolved(model="qwen-r1-7b", methods=["random"], tasks=["t"]).crs == (4.0, 8.0)  # none: the grid's


def test_a_named_budget_brings_its_grid():
    found = resolved(model="qwen3-8b", tasks=["t"], budget="paper")
    assert (found.budget.text, found.grid.name) == ("all", "paper")
    assert resolved(budget="mini").budget.text == "8x"


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        ({"limit": 0}, ConfigError, "--limit must be at least 1, got 0"),
        ({"crs": [0.5]}, ConfigError, "--cr must be at least 1, got 0.5"),
        ({"methods": []}, ConfigError, "--method has too few entries (at least 1)"),
        ({"methods": ["dms", "dms"]}, ConfigError, "--method has the same entry twice, got ['dms', 'dms']"),
        ({"device": "tpu"}, ConfigError, "--device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        ({"batch_size": "many"}, ConfigError, "--batch-size must be a whole number, got 'many'"),
        ({"crz": 8}, ConfigError, "unknown setting 'crz': did you mean 'cr'?"),
        ({"params": {"vanilla": {"cr": 3}}}, ConfigError, "set by --cr for all methods"),
        ({"params": {"dms": {"window": 3}}}, ConfigError, "'dms' is no method of this run"),
        ({"model": "owner/name"}, ConfigError, "name some with --task"),
        ({"model": "nope"}, ModelError, "choose one of mini, "),
        ({"budget": "much"}, BudgetError, "cannot read the budget 'much'"),
        ({"grid": "nope"}, BudgetError, "unknown grid 'nope'"),
    ],
)
def test_refused(values, kind, text):
    with pytest.raises(kind) as error:
        resolved(**values)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "model: mini\nmethods: dms\ncrs: 8\nseeds: [0, 1]\nlimit: 2\n",  # the fields' names
        "model: mini\nmethod: dms\ncr: 8\nseed: 0,1\nlimit: 2\n",  # the options'
        "model: mini\nmethod: [dms]\ncr: [8.0]\nseed: [0, 1]\nlimit: 2\nlength:\ntemperature:\n",
    ],
)
def test_yaml(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert load.load_config({}, path) == load.make_config(
        {"model": "mini", "methods": ["dms"], "crs": [8], "seeds": [0, 1], "limit": 2}
    )
    assert load.load_config({"limit": 5}, path).limit == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "is not a mapping"),
        ("{", "cannot read"),
        ("just words", "is not a mapping"),
        ("model: mini\nmetod: dms\n", "run.yaml, line 2: unknown setting 'metod': did you mean 'method'?"),
        ("limit: 3\nmethod: dms\nmethods: tova\n", "run.yaml, line 3: 'methods' is 'method' under another name"),
        ("limit: 3\nlimit: 4\n", "run.yaml, line 2: 'limit' stands in line 1 too"),
        ("model: mini\nlimit: few\n", "run.yaml, line 2: limit must be a whole number, got 'few'"),
        ("cr:\n  - 4\n  - 0.5\n", "run.yaml, line 3: cr.1 must be at least 1, got 0.5"),
        ("cr: 4,big\n", "run.yaml, line 1: cr.1 must be a number, got 'big'"),
        ("method_param:\n  window: 3\n", "run.yaml, line 2: method_param.window must be a mapping, got 3"),
        ("model: mini\nlimit: 3\nmodel: mini\n", "run.yaml, line 3: 'model' stands in line 1 too"),
        ("method_param:\n  tova: {recent: 3, recent: 4}\n", "'recent' stands in line 2 too"),
        ("data: {mini_aime: a, mini_aime: b}\n", "'mini_aime' stands in line 1 too"),
        ("model: ''\n", "run.yaml, line 1: model is empty"),
        ("limit: 1\ntask: [mini_aime, '']\n", "run.yaml, line 2: task is empty"),
        ('model: "a\\0b"\n', "run.yaml, line 1: model has a character that no file can hold"),
        ('data: {mini_aime: "x\\ud800"}\n', "run.yaml, line 1: data has a character that no file can hold"),
        ("seed: 99999999999999999999\n", "run.yaml, line 1: seed.0 must be less than 9223372036854775808"),
        ("length: 1000000000\n", "run.yaml, line 1: length.0 must be at most 16777216"),
        ("limit: 1000000000000\n", "run.yaml, line 1: limit must be at most"),
        ("extend: 1000000000\n", "run.yaml, line 1: extend must be at most"),
        ("force_answer: 1000000000\n", "run.yaml, line 1: force_answer must be at most"),
        ("cr: .nan\n", "run.yaml, line 1: cr.0 must be"),
        ("cr: .inf\n", "run.yaml, line 1: cr.0 must be at most 1024"),
        ("temperature: .nan\n", "run.yaml, line 1: temperature must be"),
        ("limit: true\n", "run.yaml, line 1: limit must be"),
        ("[" * 5000, "nested too deeply"),
        ("a: &a [*a]\n", "nested too deeply, or a part of itself"),
        (BOMB, "unfolds to more than 20,000 entries"),
        ("method: \ud800".encode("utf-8", "surrogatepass"), "it is not UTF-8"),
        ("length: 2024-13-45\n", "length.0 must be a whole number"),
        ("? [a, b]\n: 3\n", "run.yaml"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as error:
        load.load_config({}, path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot read"):
        load.load_config({}, tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("limit: 3\nbudget: 8y\n", BudgetError, "run.yaml, line 2: cannot read the budget '8y'"),
        ("budget: 8x\naxis: joules\n", BudgetError, "run.yaml, line 2: unknown axis 'joules'"),
        ("method:\n  - vanilla\n  - zip\n", MethodError, "run.yaml, line 3: unknown method 'zip'"),
        ("task: mini_aime,mini_chess\n", TaskError, "run.yaml, line 1: unknown task 'mini_chess'"),
        ("grid: huge\n", BudgetError, "run.yaml, line 1: unknown grid 'huge'"),
        ("model: gpt-9\n", ModelError, "run.yaml, line 1: unknown model 'gpt-9'"),
        ("vote: best\n", ConfigError, "run.yaml, line 1:"),
        ("method_param:\n  window:\n    recnt: 3\n", MethodError, "run.yaml, line 3: method window has no parameter"),
        ("task_param:\n  livecodebench:\n    start_date: may\n", TaskError, "run.yaml, line 3:"),
        ("task_param:\n  livecodebench:\n    begin: 3\n", TaskError, "run.yaml, line 3: livecodebench has no"),
    ],
)
def test_names_and_budgets_of_a_file_are_told_with_file_and_line(tmp_path, text, kind, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(kind) as error:
        load.load_config({}, path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    key = text.split(":")[0]
    if (
        key in ("budget", "method", "task", "grid", "model") and "axis" not in text
    ):  # what an option overrides is not looked at
        right = {"budget": "8x", "methods": ["vanilla"], "tasks": ["mini_aime"], "grid": "mini", "model": "mini"}
        load.load_config({key if key in right else f"{key}s": right[key if key in right else f"{key}s"]}, path)


def test_a_required_key_that_is_misspelt_is_called_so(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("description: d\nbudget: 8x\nwidhts: [1]\ncrs: [4]\n")
    file = read_yaml(path, BudgetError, "")
    with pytest.raises(BudgetError, match=r"line 3: widhts is unknown: did you mean 'widths'\?"):
        validate(Grid, {"name": "g", **file.values}, BudgetError, file.place)


def test_a_fault_is_told_where_it_was_written(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("limit: 3\ncr: [4, 8]\n")
    with pytest.raises(ConfigError, match=r"^--limit must be at least 1, got 0$"):
        load.load_config({"limit": 0}, path)
    path.write_text("limit: 0\n")
    with pytest.raises(ConfigError, match=r"run.yaml, line 1: limit must be at least 1, got 0$"):
        load.load_config({"crs": [4]}, path)


def test_the_example_is_a_run():
    example = Path(__file__).parents[3] / "docs" / "run.yaml"
    found = resolve.resolve_config(load.load_config({}, example))
    assert (found.methods, found.crs, found.seeds) == (("vanilla", "dms", "window"), (4.0, 8.0), (0, 1))
    assert found.params == {"window": {"recent": 32}}


def test_what_decides_results_is_compared_and_the_batch_size_is_not():
    one, other = resolved(batch_size=1), resolved(batch_size=7, gpu_memory=0.5, cuda_graphs=False)
    assert one.compared() == other.compared()
    assert one.compared() != resolved(seeds=[1]).compared()
    json.dumps(one.compared())


@pytest.mark.parametrize("name", ["plain", "forced"])
def test_a_run_of_an_earlier_version_is_still_the_same_run(name):
    """Folders that the first version wrote, which knew fewer settings."""
    folder = Path(__file__).parents[2] / "results" / "schema1" / name
    info = json.loads((folder / "run.json").read_text())
    old = info["config"]
    names = ("methods", "budget", "tasks", "lengths", "crs", "limit", "params", "device", "dtype")
    values = {each: old[each] for each in names} | {"force_answer": old.get("force_answer", 0)}
    config = with_engine(resolve.resolve_config(load.make_config(values)), {}, (), folder)
    assert not {"engine", "kv_dtype", "predict", "extend_word"} & old.keys()
    assert manifest.changes(info, {**info, "config": config.compared()}) == []
    for change in ({"predict": "closed"}, {"kv_dtype": "int8"}, {"limit": 3}, {"force_answer": 9}):
        other = with_engine(resolve.resolve_config(load.make_config(values | change)), {}, (), folder)
        assert len(manifest.changes(info, {**info, "config": other.compared()})) == 1


def test_which_of_several_gpus_decides_nothing():
    """So a run that one GPU began, another one goes on with."""
    one, other = resolved(device="cuda"), resolved(device="cuda:3")
    assert other.device == "cuda:3"
    assert one.compared() == other.compared()
    assert one.compared() != resolved(device="cpu").compared()
    names = {load.make_config({"device": device}).folder_name() for device in ("cuda", "cuda:0", "cuda:3")}
    assert names == {"mini-vanilla-8x-cuda"}
    for name in ("cuda:", "cuda:-1", "cuda:01", "cuda:x", "cuda:1 ", "cpu:0", "mps", "cuda1", ""):
        with pytest.raises(ConfigError, match="--device must be"):
            resolved(device=name)


def test_folder_names_differ_where_results_do():
    changes = [
        *(
            {},
            {"methods": ["vanilla", "dms"]},
            {"budget": "4x"},
            {"budget": "kv_reads=2^20"},
            {"limit": 3},
            {"crs": [8]},
        ),
        *(
            {"seeds": [1]},
            {"seeds": [0, 1]},
            {"tasks": ["mini_lcb"]},
            {"temperature": 0.5},
            {"top_p": 0.5},
            {"axis": "tokens"},
        ),
        *({"grid": "paper"}, {"model": "Qwen/Qwen3-8B"}, {"dtype": "bfloat16"}, {"params": {"vanilla": {"a": 1}}}),
        {"predict": "closed"},
        {"extend": 1},
        *({"extend": 1, "extend_word": word} for word in ("Hmm", "Hmm,", "Hmm.", "\n", "\n\n")),
    ]
    names = [load.make_config(change).folder_name() for change in changes]
    assert len(set(names)) == len(names)
    assert names[0] == "mini-vanilla-8x"
    assert {"mini-vanilla-8x-extend1", "mini-vanilla-8x-extend1-wordHmm"} <= set(names)
    assert all("/" not in name and " " not in name for name in names)


def test_named_models_are_described():
    found = models.available()
    assert {"mini", "qwen-r1-1.5b", "qwen-r1-7b", "qwen-r1-32b", "qwen3-8b", "qwen3-8b-dms", "llama-3.1-8b"} <= set(
        found
    )
    assert all(found.values())
    assert models.resolve("qwen3-8b", "dms", 8.0).path == "nvidia/Qwen3-8B-DMS-8x"
    assert models.resolve("qwen3-8b", "vanilla", 1.0).path == "Qwen/Qwen3-8B"


def test_a_cr_that_nobody_retrofitted():
    with pytest.raises(ModelError, match="mini has DMS checkpoints at CR 2, 4, 8, not 3: pass --cr 2,4,8"):
        models.resolve("mini", "dms", 3.0)
    with pytest.raises(ModelError, match="qwen-r1-7b has no DMS checkpoint"):
        models.resolve("qwen-r1-7b", "dms", 8.0)


@pytest.fixture
def folder(tmp_path):
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "num_hidden_layers": 3}
    for name, more in (
        ("base", {}),
        ("dms4", {"dms_window_size": 16, "dms_cr": 4.0}),
        ("dms8", {"dms_window_size": 16}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "qwen3", **shape, **more}))
    return tmp_path


def test_a_local_set_of_checkpoints(folder):
    found = models.find(str(folder))
    assert (found.family, list(found.dms)) == ("qwen3", [4.0, 8.0])
    assert models.resolve(str(folder), "window", 8.0).path == str(folder / "base")
    assert models.resolve(str(folder), "dms", 8.0).path == str(folder / "dms8")


@pytest.mark.parametrize(
    ("keys", "own"),
    [
        ({"dmc_cr": 4.0}, "dmc"),
        ({"dms_window_size": 16, "dms_cr": 4, "dms_separate_alpha": False}, "dms"),
        ({"dms_window_size": 16, "dms_cr": 4}, "dms"),  # a key that is missing means the same
    ],
)
def test_a_retrofit_with_borrowed_neurons_is_no_base(tmp_path, keys, own):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", **keys}))
    assert models.resolve(str(tmp_path), own, 4).path == str(tmp_path.resolve())
    for method in ("vanilla", "tova"):
        with pytest.raises(ModelError, match=f"{method} would take them for attention"):
            models.resolve(str(tmp_path), method, 4)
    keys = {"dms_window_size": 16, "dms_cr": 4, "dms_separate_alpha": True}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", **keys}))
    assert models.resolve(str(tmp_path), "vanilla", 1).path == str(tmp_path.resolve())


def test_retrofits_of_several_kinds_in_one_folder(folder):
    for name in ("dmc2", "dmc8", "dmc16", "dmcx"):
        (folder / name).mkdir()
        if name != "dmc16":  # a checkpoint without a configuration is none
            (folder / name / "config.json").write_text(json.dumps({"model_type": "qwen3", "dmc_cr": 2.0}))
    found = models.find(str(folder))
    assert {kind: list(paths) for kind, paths in found.retrofits.items()} == {"dms": [4.0, 8.0], "dmc": [2.0, 8.0]}
    assert models.resolve(str(folder), "dmc", 2.0).path == str(folder / "dmc2")
    assert models.resolve(str(folder / "dmc2"), "dmc", 2.0).path == str(folder / "dmc2")
    with pytest.raises(ModelError, match="has DMC checkpoints at CR 2, 8, not 4: pass --cr 2,8"):
        models.resolve(str(folder), "dmc", 4.0)
    with pytest.raises(ModelError, match=r"mini has no DMC checkpoint, which dmc needs: .* --method dmc"):
        models.resolve("mini", "dmc", 8.0)

    def crs(*methods):
        return resolve.resolve_config(schema.RunConfig(model=str(folder), methods=methods, tasks=("mini_aime",))).crs

    assert crs("vanilla") == crs("dms") == (4.0, 8.0)
    assert crs("dmc", "window") == (2.0, 8.0)
    assert crs("dms", "dmc") == (8.0,)


def test_a_local_checkpoint(folder):
    assert models.resolve(str(folder / "dms4"), "dms", 4.0).path == str(folder / "dms4")
    assert models.find(str(folder / "base")).dms == {}
    (folder / "empty").mkdir()
    with pytest.raises(ModelError, match="is not a checkpoint"):
        models.find(str(folder / "empty"))
    with pytest.raises(ModelError, match="unknown model"):
        models.find("./nowhere/else")
    (folder / "base" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="unreadable"):
        models.find(str(folder / "base"))


def test_bytes_of_an_entry(folder):
    assert shape_of("m", str(folder / "base")).entry_bytes("float32") == 2 * 8 * 4 * 3 * 2
    assert shape_of("m", str(folder / "base")).entry_bytes("bfloat16") == 2 * 8 * 2 * 3 * 2
    (folder / "base" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="lacks"):
        shape_of("m", str(folder / "base")).entry_bytes("float32")


def test_other_weights_have_another_fingerprint(folder):
    weights = folder / "base" / "model.safetensors"
    weights.write_bytes(b"a" * 100)
    before = models.fingerprint(str(folder / "base"))
    assert before == models.fingerprint(str(folder / "base"))
    weights.write_bytes(b"a" * 99 + b"b")
    assert models.fingerprint(str(folder / "base")) != before
    assert models.fingerprint("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
