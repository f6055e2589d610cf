"""The command line as a user meets it: every error is one line on stderr and exit code 2, and it starts at once."""

import re
import subprocess
import sys

import checkpoints
import commandline
import pytest

from hyperscale import results
from hyperscale.cli import arguments, main


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("weights"), crs=(8,))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    return commandline.caller(monkeypatch, capsys, tmp_path)


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from hyperscale.cli import main; sys.argv = ['hyperscale', 'run', '--help']\n"
        "try: main.main()\nexcept SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'matplotlib', 'datasets', 'yaml', 'lm_eval'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert "--budget" in done.stdout
    assert done.stdout.rstrip().endswith("HEAVY []")


def test_without_a_command_it_shows_the_help(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "Commands:" in out
    assert run("--version")[1].startswith("hyperscale ")


@pytest.mark.parametrize(
    ("command", "name"), [("models", "mini"), ("methods", "dms"), ("tasks", "mini_aime"), ("budgets", "paper")]
)
def test_lists(run, command, name):
    code, out, err = run(command)
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.split()[0] == name]
    assert len(line.split()) > 3


def test_a_model_is_shown_with_its_template_and_defaults(run):
    code, out, err = run("models", "qwen-r1-32b")
    assert (code, err) == (0, "")
    shown = dict(line.split("  ", 1) for line in out.splitlines())
    shown = {name: line.strip() for name, line in shown.items()}
    assert shown["base"] == "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"
    assert shown["template"] == "opens <think> itself; no system prompt"
    assert shown["top_p"] == "0.95 (models.yaml)"
    assert shown["shape"].endswith("64 layers, 8 KV heads of 128")
    code, out, err = run("models", "mini")
    assert "dms 8×" in out


def test_a_folder_is_shown_as_a_model(run, weights):
    code, out, err = run("models", weights)
    assert (code, err) == (0, "")
    assert re.search(r"^dms 8×  .*dms8$", out, re.MULTILINE)
    assert re.search(r"^shape   .* \d layers, \d KV heads", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("runn",), "No such command"),
        (("run", "--bogus"), "No such option"),
        (("models", "gpt-9"), "unknown model 'gpt-9': choose one of mini,"),
        (("models", "mini", "--add", ".", "own"), "leave one of them out"),
        (("run", "--limit", "few"), "--limit"),
        (("run", "--limit", 0), "limit"),
        (("run", "--model", "gpt-9"), "unknown model 'gpt-9': choose one of mini,"),
        (("run", "--model", "./missing"), "unknown model './missing'"),
        (("run", "--method", "zip"), "unknown method 'zip'"),
        (("run", "--method", "snapk", "--engine", "vllm"), "unknown method 'snapk'"),
        (("run", "--method", "dms,"), "empty name"),
        (("run", "--method", "dms,dms"), "twice"),
        (("run", "--method", "dms", "--cr", "3"), "CR 2, 4, 8, not 3"),
        (("run", "--cr", "big"), "--cr 'big' is not a list of numbers"),
        (("run", "--seed", "1,x"), "--seed"),
        (("run", "--task", "mini_chess"), "unknown task 'mini_chess'"),
        (("run", "--budget", "lots"), "cannot read the budget 'lots'"),
        (("run", "--budget", "8x", "--axis", "joules"), "unknown axis 'joules'"),
        (("run", "--device", "tpu"), "device"),
        (("run", "--config", "none.yaml"), "cannot read none.yaml"),
        (
            ("run", "--model", "qwen-r1-7b", "--method", "dms", "--task", "mini_aime"),
            "qwen-r1-7b has no DMS checkpoint",
        ),
        (("plot", "nowhere"), "no folder nowhere"),
        (("plot", "."), "holds no run"),
    ],
)
def test_mistakes(run, arguments, text):
    commandline.fails(run(*arguments), text)


def options(weights, *more):
    base = ("run", "--model", weights, "--task", "mini_aime", "--grid", "mini", "--budget", "0.1x", "--limit", "1")
    return (*base, *more)


def test_nothing_fits(run, weights):
    result = run(*options(weights, "--budget", "0.001x"))
    commandline.fails(result, "the cheapest point is 1-256-1 of vanilla on mini_aime", "raise the budget")
    assert "--cr" not in result[2]
    commandline.fails(
        run(*options(weights, "--budget", "0.001x", "--method", "dms")), "1-256-8 of dms", ", or raise --cr"
    )


def test_a_path_is_printed_as_it_is(run, weights, tmp_path):
    code, out, err = run(*options(weights, "--out", "[/bold]x"))
    assert (code, err) == (0, "")
    assert "writing to [/bold]x" in out
    assert (tmp_path / "[/bold]x" / results.POINTS).is_file()


def test_a_dry_run_prints_the_plan_and_writes_nothing(run, weights, tmp_path):
    code, out, err = run(*options(weights, "--dry-run"))
    assert (code, err) == (0, "")
    assert "mini_aime" in out
    assert "chains to generate" in out
    assert list(tmp_path.iterdir()) == []


def test_a_run_then_other_settings_then_broken_files(run, weights, tmp_path):
    code, out, err = run(*options(weights, "--out", "run"))
    assert (code, err) == (0, "")
    assert "hyperscale plot run" in out
    commandline.fails(
        run(*options(weights, "--out", "run", "--temperature", "1.5")), "temperature was", "now 1.5", "--out"
    )
    samples = tmp_path / "run" / results.SAMPLES
    whole = samples.read_bytes()
    samples.write_bytes(b"garbage\n" + whole)
    commandline.fails(run(*options(weights, "--out", "run")), "run/samples.jsonl line 1 is corrupt")
    commandline.fails(run("plot", "run"), "run/samples.jsonl line 1 is corrupt")
    samples.write_bytes(whole)
    (tmp_path / "run" / results.RUN_FILE).write_text("{")
    commandline.fails(run(*options(weights, "--out", "run")), "run.json is unreadable")
    commandline.fails(run(*options(weights, "--out", "run/points.csv")), "cannot write in run/points.csv")


def test_the_default_folder_is_under_results(run, weights, tmp_path):
    code, _, _ = run(*options(weights))
    assert code == 0
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.endswith("-vanilla-0.1x-mini_aime-gridmini-n1")
    assert (folder / results.POINTS).exists()


def test_a_folder_in_use_is_refused(run, weights, tmp_path):
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / results.LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commandline.fails(run(*options(weights, "--out", "run")), "another process is writing")


def test_settings_from_a_file(run, weights, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"model: {weights}\nmethods: [vanilla, dms]\ncrs: 8\ntasks: mini_aime\ngrid: mini\nbudget: 0.1x\nlimit: 5\n"
    )
    code, out, _ = run("run", "--config", "run.yaml", "--limit", "2", "--dry-run")
    assert code == 0
    assert "dms 8×" in out
    assert "2 problems" in out


def test_broken_weights(run, weights, tmp_path):
    copy = checkpoints.write(tmp_path / "weights", crs=())
    file = copy / "base" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(b"not weights")
    commandline.fails(run(*options(copy, "--out", "run")), "model.safetensors is no safetensors file")
    file.write_bytes(whole)
    (copy / "base" / "tokenizer.json").write_text("{")
    commandline.fails(run(*options(copy, "--out", "run")), "cannot load the tokenizer")


def test_errors_of_ours_are_not_hidden(run, monkeypatch):
    """Only user errors are caught: a defect goes through, to the hook that ends the process with exit code 2."""
    monkeypatch.setattr(arguments, "names", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["hyperscale", "run"])
    with pytest.raises(ZeroDivisionError):
        main.main()


@pytest.mark.parametrize(
    ("command", "module", "kept"),
    [
        ("run", "hyperscale.run.prepare.prepare_run", "finished chains are kept; the same command resumes"),
        ("score", "hyperscale.results.folders", "a run is graded again whole or not at all"),
        ("plot", "hyperscale.results.read", "run the command again"),
    ],
)
def test_only_what_resumes_says_so_when_interrupted(run, monkeypatch, command, module, kept):
    def interrupt(*_):
        raise main._InterruptedError  # what the signals raise

    monkeypatch.setattr(module, interrupt)
    code, _, err = run(command, *(["folder"] if command != "run" else ["--limit", "1"]))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("interrupted: ")
    assert kept in err
    assert ("resumes" in err) is (command == "run")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--limit", "x"),
        ("run", "--temperature", "hot"),
        ("plot", "--resamples", "5"),
        ("gate", "x", "--tolerance", "x"),
    ],
)
def test_a_value_that_is_no_number_is_told_in_plain_words(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert f"'{arguments[-2]}': must be" in err
    assert "Input" not in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        *(
            (("run", option, ""), f"{option} is empty")
            for option in ("--out", "--config", "--model", "--data", "--gpu")
        ),
        (("run", "--out="), "--out is empty"),
        (("plot", ""), "an argument is empty"),
        (("gate", "x", "--baseline", ""), "--baseline is empty"),
        (("run", "--out", "a\udcff"), "is not UTF-8"),
        (("plot", "--resamples", "1000000000"), "--resamples"),
        (("plot", "--resamples", "-1"), "--resamples"),
        (("report", "--text-mib", "1e9"), "--text-mib"),
        (("run", "--limit", "9" * 30), "--limit must be at most"),
        (("run", "--seed", "9" * 30), "--seed must be less than"),
        (("run", "--length", "9" * 12), "--length must be at most"),
        (("run", "--extend", "9" * 12), "--extend must be at most"),
        (("run", "--force-answer", "9" * 12), "--force-answer must be at most"),
        (("run", "--batch-size", "9" * 12), "--batch-size must be at most"),
        (("run", "--temperature", "nan"), "--temperature must be"),
        (("run", "--cr", "nan"), "--cr must be"),
        (("run", "--budget", "9" * 400 + "x"), "must be a positive, finite number"),
        (("run", "--task", "mini_aime", "--data", "~nobody_at_all/x", "--limit", "1"), "no file or folder"),
        (("run", "--model", "~nobody_at_all/x"), "unknown model"),
        (("plot", "x" * 300), "File name too long"),
        (("run", "--config", "x" * 300), "File name too long"),
    ],
)
def test_values_that_nobody_means(run, arguments, text):
    commandline.fails(run(*arguments), text)


@pytest.mark.parametrize("command", ["plot", "report", "gate", "score", "run"])
def test_paths_that_lead_nowhere(run, tmp_path, command):
    """A link to itself, a file where a folder is meant, a file inside a file."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("x")
    before = sorted(path.name for path in tmp_path.iterdir())
    for name in ("loop", "file", "file/inside"):
        arguments = (command, name) if command != "run" else ("run", "--limit", "1", "--budget", "1x", "--out", name)
        commandline.fails(run(*arguments, *(("--baseline", "b") if command == "gate" else ())))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
