"""The report's page, without a browser: what is in the file, what is not, and how large it may become."""

import base64
import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest
from report_pages import Page, unpacked, write_run
from report_runs import HOSTILE, run
from synthetic_samples import chains, points, points_table, sample

from hyperscale import report, results
from hyperscale.analysis.answers import find_answers
from hyperscale.analysis.bootstrap import make_bootstraps
from hyperscale.analysis.margins import compute_margin
from hyperscale.analysis.sentences import write_paragraphs
from hyperscale.cli.options import parse
from hyperscale.errors import ResultsError
from hyperscale.report.html import chains as browser
from hyperscale.report.html import text_packing
from hyperscale.report.html.command import write_command
from hyperscale.run.config.load import load_config
from hyperscale.run.config.resolve import resolve_config
from hyperscale.run.config.schema import RunConfig
from hyperscale.tasks.task import prompt_hash
from hyperscale.utils.settings import settings_of


@pytest.fixture(scope="module")
def lines():
    found = chains("vanilla", 1, problems=12, width=2)
    for task in ("mini_aime", "mini_lcb"):
        for method, cr in (("dms", 4), ("dms", 8), ("window", 8)):
            found += chains(method, cr, problems=12, width=4, task=task, skill=0.1)
    texts = (f"{i} thinks</think>says {line.whole.answer}" for i, line in enumerate(found))
    return [dataclasses.replace(line, text=text) for line, text in zip(found, texts, strict=True)]


@pytest.fixture(scope="module")
def page(lines, tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("r") / "demo", lines)
    return Page(report.write_report(folder).read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_points_and_margins(page, lines):
    data = page.data
    expected = points_table(lines)
    column = data["columns"].index("accuracy")
    assert sorted(row[column] for row in data["points"]) == pytest.approx(sorted(expected["accuracy"]), rel=1e-5)
    bootstraps = make_bootstraps(points(lines))
    for axis in ("kv_reads", "seconds"):
        for each in [m for m in data["margins"] if m["axis"] == axis]:
            direct = compute_margin(bootstraps["mini", each["task"]], each["a"], each["b"], axis)
            assert [each["linear"], each["log2"]] == pytest.approx([direct.linear, direct.log2], rel=1e-4)
            assert each["log2_ci"] == pytest.approx(direct.log2_ci, rel=1e-4)
    pairs = {(m["task"], m["a"], m["b"]) for m in data["margins"]}
    aime = {("mini_aime", a, b) for a, b in (("dms", "vanilla"), ("window", "vanilla"), ("window", "dms"))}
    assert pairs == aime | {("mini_lcb", "window", "dms")}


def test_the_answer_in_words_is_that_of_a_run_and_stands_first(page, lines):
    answers = find_answers(make_bootstraps(points(lines)).values(), "kv_reads")
    assert page.data["answers"] == [
        {"heading": heading, "sentences": sentences} for heading, sentences in write_paragraphs(answers)
    ]
    assert page.data["unfinished"] == []
    assert {panel["unlike"] for panel in page.data["panels"]} == {""}
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections[:2] == ["answer", "frontiers"]


def test_unlike_problems_and_unfinished_runs_are_said(tmp_path):
    samples = chains("vanilla", 1, problems=14, width=2) + chains("dms", 8, problems=12, width=2)
    folder = write_run(tmp_path / "begun", samples)
    (folder / "plan.json").write_text(json.dumps({"chains": {"vanilla": 28, "dms 8×": 28}}))
    data = Page(report.write_report(folder).read_text(encoding="utf-8")).data
    assert [panel["unlike"] for panel in data["panels"]] == ["vanilla 14, dms 12"]
    (note,) = data["unfinished"]
    assert note.startswith("begun is unfinished, 52 of 56 chains")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"methods": ("dms", "window"), "crs": (4.0, 8.0), "limit": 3, "budget": "2x", "axis": "tokens"},
        {"methods": ("window",), "params": {"window": {"recent": 32}}, "temperature": 0.5, "seeds": (1, 2)},
        {"methods": ("dms", "tova"), "params": {"tova": {"budget": [512, 1024], "pin_prompt": True}}},
        {"methods": ("tova",), "params": {"tova": {"budget": 64}}, "template_args": {"a": ["b", 1], "c": {"d": 2}}},
        {"methods": ("dms",), "crs": (8 / 3, 4.0), "temperature": 0.1234567, "top_p": 1 - 1e-7},
        {"tasks": ("mini_aime",), "lengths": (256,), "extend": 2, "force_answer": 8, "kv_dtype": "int8"},
        {"tasks": ("livecodebench",), "task_params": {"livecodebench": {"end_date": "2024-12-31"}}},
        {"system_prompt": "Be brief; don't guess.", "template_args": {"enable_thinking": False}, "predict": "closed"},
    ],
)
def test_the_command_of_a_run_makes_the_same_run(settings):
    words = shlex.split(write_command({**run_info(RunConfig(**settings)), "vote": "mean@k"}))
    assert words[:2] == ["hyperscale", "run"]
    texts = {}
    for option, text in zip(words[2::2], words[3::2], strict=True):
        texts.setdefault(option, []).append(text)
    options = {each.option: each for each in settings_of(RunConfig)}
    many = ("pairs", "typed pairs", "nested")
    values = {
        options[name].field: parse(options[name], found if options[name].form in many else found[0])
        for name, found in texts.items()
    }
    again = load_config({name: value for name, value in values.items() if value is not None})
    assert again.vote == "mean@k"
    assert run_info(again) == run_info(RunConfig(**settings))


@pytest.mark.parametrize(("vote", "written"), [("best-of-n:models/rm", False), ("best-of-n:logprob", True)])
def test_the_command_has_no_vote_that_only_finished_chains_can_take(vote, written):
    assert ("--vote" in shlex.split(write_command({**run_info(RunConfig()), "vote": vote}))) == written


def run_info(config):
    """The parts of ``run.json`` that its command is written from, as JSON has them."""
    resolved = resolve_config(config).placed(device="cpu", dtype="float32")
    return json.loads(json.dumps({"config": resolved.compared(), "sampling_sources": resolved.sampling_sources}))


def test_every_point_knows_the_problems_it_is_right_on(page, lines):
    by_row = {(p.series.task, p.series.method, p.series.CR, p.W, p.L): p for p in points(lines)}
    columns = [page.data["columns"].index(name) for name in ("task", "method", "CR", "W", "L")]
    assert len(page.index["points"]) == len(page.data["points"]) == len(by_row)
    for row, (arm, shares) in zip(page.data["points"], page.index["points"], strict=True):
        point = by_row[tuple(row[i] for i in columns)]
        ids = [problem["id"] for problem in page.index["problems"] if problem["task"] == point.series.task]
        found = {name: share for name, share in zip(ids, shares, strict=True) if share is not None}
        assert found == {name: round(1000 * v) for name, v in zip(point.problems, point.accuracy, strict=True)}
        name = page.index["arms"][arm]["name"]
        assert name.split()[0] == point.series.method
        assert name.endswith(f"{point.series.CR:g}×") or point.series.CR == 1


def test_frontiers_rise_and_their_bands_hold_them(page):
    data = page.data
    assert len(data["series"]) == 5
    accuracy, reads = (data["columns"].index(name) for name in ("accuracy", "kv_reads"))
    for series in data["series"]:
        frontier = series["frontiers"]["kv_reads"]
        kept = [data["points"][i] for i in frontier["kept"]]
        assert [row[accuracy] for row in kept] == sorted({data["points"][i][accuracy] for i in frontier["kept"]})
        assert [row[reads] for row in kept] == sorted(row[reads] for row in kept)
        assert set(frontier["kept"]) <= set(series["points"])
        known = [(low, high) for low, high in zip(frontier["low"], frontier["high"], strict=True) if low is not None]
        assert len(known) > 10
        assert all(low <= high for low, high in known)


def test_every_chain_is_there_with_its_text(page, lines):
    index = page.index
    assert (index["total"], index["hidden"], index["shortened"], index["limit"]) == (len(lines), 0, 0, None)
    found = set()
    for i, problem in enumerate(index["problems"]):
        stored = unpacked(page.blocks[f"texts-{i}"])
        assert len(stored) == len(problem["chains"])
        found |= set(stored)
    assert found == {line.text for line in lines}


def test_a_page_loads_nothing_and_runs_only_its_own_script(page):
    for tag, attributes in page.elements:
        assert tag not in ("img", "link", "iframe", "object", "base", "form")
        assert not {"src", "action", "srcset", "data"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    addresses = set(re.findall(r"https?://[\w./]+", page.blocks["program"]))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place


def test_what_models_and_files_say_never_becomes_markup(tmp_path):
    line = sample(HOSTILE, answer=HOSTILE, right=False, method=HOSTILE, model=HOSTILE, text=HOSTILE)
    text = report.render_report([run(tmp_path / "x", [line, sample()], note=HOSTILE)], HOSTILE)
    plain = report.render_report([run(tmp_path / "x", [sample("p"), sample()])], "x")
    text.encode("utf-8")
    shapes = [[tag for tag, a in Page(t).elements if not a.get("id", "").startswith("texts")] for t in (text, plain)]
    assert shapes[0] == shapes[1]
    page = Page(text)
    assert page.data["name"] == HOSTILE
    assert HOSTILE in [unpacked(page.blocks[f"texts-{i}"])[0] for i in range(2)]


def test_the_same_runs_give_the_same_page(lines, tmp_path):
    there, back = (report.render_report([run(tmp_path, part)], "x") for part in (lines, lines[::-1]))
    assert there == back


def test_runs_and_models_have_names_of_their_own(tmp_path):
    runs = [run(tmp_path / name, [sample(f"p{i}", model=name) for i in range(2)]) for name in ("a", "b")]
    page = Page(report.render_report(runs, "x"))
    assert set(page.data["styles"]) == {"vanilla (a)", "vanilla (b)"}
    assert [arm["series"] for arm in page.index["arms"]] == ["vanilla (a)", "vanilla (b)"]
    assert page.data["margins"] == []


def test_linked_runs_whose_folders_share_a_name_stay_two(tmp_path):
    for name in ("first", "second"):
        write_run(tmp_path / f"of {name}" / "run", [sample(text=name)])
        (tmp_path / "linked").mkdir(exist_ok=True)
        (tmp_path / "linked" / name).symlink_to(tmp_path / f"of {name}" / "run")
    page = Page(report.write_report(tmp_path / "linked").read_text(encoding="utf-8"))
    assert [each["name"] for each in page.data["runs"]] == ["first", "second"]
    place = page.data["columns"].index("run")
    assert {row[place] for row in page.data["points"]} == {"first", "second"}
    assert [arm["name"] for arm in page.index["arms"]] == ["vanilla, first", "vanilla, second"]


def test_means_of_groups_say_of_which_model_and_run_they_are(tmp_path):
    def made(name, model="mini"):
        lines = [sample(f"p{i}", task=task, model=model) for task in ("mini_aime", "mini_lcb") for i in range(2)]
        groups = {"both": {"tasks": ["mini_aime", "mini_lcb"], "weight_by_size": False}}
        of_run = run(tmp_path / name, lines)
        return dataclasses.replace(of_run, info={**of_run.info, "task_groups": groups})

    def headings(*runs):
        answers = Page(report.render_report(runs, "x")).data["answers"]
        return [each["heading"].split(", mean of 2 tasks")[0] for each in answers if "mean of" in each["heading"]]

    assert headings(made("a")) == ["both"]
    assert headings(made("a"), made("b")) == ["both, run a", "both, run b"]
    assert headings(made("a"), made("b", "other")) == ["both, model mini, run a", "both, model other, run b"]


def test_texts_come_back_whole_where_there_is_room():
    groups = [["one", "two \ud800 \u2028 😀"], [], ["x" * 10_000]]
    packed = text_packing.pack_texts(groups, 10_000)
    assert [unpacked(block) for block in packed.blocks] == groups
    assert (packed.limit, packed.n_shortened) == (None, 0)


@pytest.mark.parametrize("room", [30_000, 8_000, 3_000])
def test_texts_are_shortened_evenly_until_they_fit(room):
    noise = base64.b64encode(b"".join(prompt_hash(str(i)).encode() for i in range(4000))).decode()
    groups = [["short", noise[:1000]], [noise[:50_000], noise[20_000:60_000]]]
    packed = text_packing.pack_texts(groups, room)
    assert 0.5 * room < sum(map(len, packed.blocks)) <= room
    short, *rest = [text for block in packed.blocks for text in unpacked(block)]
    assert short == "short"
    cut = [text for text in rest if isinstance(text, list)]
    assert len(cut) == packed.n_shortened
    for head, left, end in cut:
        assert len(head) + len(end) == packed.limit
        assert any(t.startswith(head) and t.endswith(end) and len(t) == packed.limit + left for g in groups for t in g)
    assert all(len(text) <= packed.limit for text in rest if isinstance(text, str))


def test_without_room_for_texts_there_are_none(lines, tmp_path):
    page = Page(report.render_report([run(tmp_path, lines)], "x", text_mib=0))
    assert page.index["limit"] == 0
    assert not [name for name in page.blocks if name.startswith("texts")]


def test_texts_that_need_more_room_go_to_a_folder_beside(lines, tmp_path):
    folder = write_run(tmp_path / "r", lines)
    notes = []
    path = report.write_report(folder, text_mib=0.001, note=notes.append)
    page, beside = Page(path.read_text(encoding="utf-8")), folder / "report.texts"
    assert page.index["beside"]["folder"] == beside.name
    assert (page.index["shortened"], page.index["limit"]) == (0, None)
    assert not [name for name in page.blocks if name.startswith("texts")]
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert re.search(r"script-src 'sha256-[^']+' 'strict-dynamic';", policy)
    assert "keep that folder beside the file" in notes[-1]
    names = page.index["beside"]["files"]
    assert len(names) == len(page.index["problems"])
    found = set()
    for name, problem in zip(names, page.index["problems"], strict=True):
        script = (beside / f"{name}.js").read_text(encoding="ascii")
        block = re.fullmatch(r'hyperscaleTexts\("([0-9a-f-]+)","([A-Za-z0-9+/=]+)"\)\n', script)
        assert block[1] == name
        assert len(unpacked(block[2])) == len(problem["chains"])
        found |= set(unpacked(block[2]))
    assert found == {line.text for line in lines}
    assert results.read(tmp_path)[0].folder == folder  # the folder of texts is no run
    before = {file.name: file.stat().st_mtime_ns for file in beside.iterdir()}
    report.write_report(folder, text_mib=0.001)
    assert {file.name: file.stat().st_mtime_ns for file in beside.iterdir()} == before  # the same page


def test_texts_of_older_pages_go_and_other_files_stay(lines, tmp_path):
    folder = write_run(tmp_path / "r", lines)
    beside = folder / "report.texts"
    report.write_report(folder, text_mib=0.001)
    first = {file.name for file in beside.iterdir()}
    write_run(folder, [dataclasses.replace(line, text=f"{line.text} more") for line in lines])
    (beside / "mine.js").write_text("")
    report.write_report(folder, text_mib=0.001)
    second = {file.name for file in beside.iterdir()} - {"mine.js"}
    assert len(second) == len(first)
    assert not first & second
    index = Page(report.write_report(folder, text_mib=0.001, one_file=True).read_text(encoding="utf-8")).index
    assert index["beside"] is None
    assert index["limit"] == 0
    assert [file.name for file in beside.iterdir()] == ["mine.js"]
    (beside / "mine.js").unlink()
    assert Page(report.write_report(folder).read_text(encoding="utf-8")).index["limit"] is None
    assert not beside.exists()


def test_too_many_chains_leave_every_problem_its_first(lines, monkeypatch):
    monkeypatch.setattr(browser, "MAX_CHAINS", 100)
    index, blocks = browser.collect_chains([run(Path("r"), lines)], {}, 10**6)
    assert sum(len(problem["chains"]) for problem in index["problems"]) == 100
    assert index["hidden"] == len(lines) - 100
    assert {chain[2] for problem in index["problems"] for chain in problem["chains"]} == {0, 1}
    assert {len(unpacked(b)) for b in blocks} == {len(p["chains"]) for p in index["problems"]}
    assert sum(arm[2] for problem in index["problems"] for arm in problem["arms"]) == len(lines)


def test_errors_say_what_to_do(lines, tmp_path):
    with pytest.raises(ResultsError, match="no folder"):
        report.write_report(tmp_path / "nowhere")
    with pytest.raises(ResultsError, match="no finished chain"):
        report.write_report(write_run(tmp_path / "empty", []))
    folder = write_run(tmp_path / "full", lines[:4])
    with pytest.raises(ResultsError, match=r"is a folder: pass a file"):
        report.write_report(folder, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write"):
        report.write_report(folder, tmp_path / "file" / "report.html")


def test_the_command_writes_beside_the_run_and_leaves_it_readable(lines, tmp_path, capsys, monkeypatch):
    from hyperscale.cli import main

    folder = write_run(tmp_path / "r", lines[:4])
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["hyperscale", "report", str(folder)])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 0
    assert f"wrote {folder / 'report.html'}" in capsys.readouterr().out
    assert len(results.read(folder)[0].samples) == 4


def test_the_command_replaces_no_file_of_a_run(lines, tmp_path, capsys, monkeypatch):
    from hyperscale.cli import main

    folder = write_run(tmp_path / "r", lines[:4])
    old = (folder / "samples.jsonl").read_bytes()
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["hyperscale", "report", str(folder), "--out", str(folder / "samples.jsonl")])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 2
    assert "would replace what results are read from" in capsys.readouterr().err
    assert (folder / "samples.jsonl").read_bytes() == old
