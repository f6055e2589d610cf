"""A chain that is being decoded, as a terminal shows it."""

import io

import pytest
from rich.console import Console

from hyperscale.cli.display import live_chain
from hyperscale.cli.display.live_chain import ChainView, printable
from hyperscale.engines.base import ChainProgress, Request


@pytest.fixture
def console(monkeypatch):
    monkeypatch.setattr(live_chain, "_FRAME_SECONDS", 0.0)
    return Console(file=io.StringIO(), force_terminal=True, width=90, color_system=None, legacy_windows=False)


def progress(chain, tokens, text="x"):
    return ChainProgress(Request("t/p", chain, (1,) * 20, 99), tokens, 7.4, lambda: text)


def printed(console):
    text = console.file.getvalue()
    console.file.seek(0)
    console.file.truncate()
    return text


def test_text_length_and_cache(console):
    view = ChainView(console)
    view.update("dms 8×", progress(0, 31, "line one\nline two\x1b[31m"), "3/8 chains done")
    text = printed(console)
    assert "line one" in text
    assert "line two [31m" in text
    assert "dms 8× · 31 tokens · 7 KV entries live, a full cache would hold 50 · 3/8 chains done" in text
    view.update("dms 8×", progress(0, 2000, "begin" + "word " * 2000 + "end"))
    text = printed(console)
    assert "end" in text
    assert "begin" not in text
    assert len(text.splitlines()) < 12
    view.close()
    view.close()
    assert "\x1b[2K" in printed(console)  # wiped


def test_one_chain_is_followed_until_it_ends(console):
    view, seen = ChainView(console), []
    # A step tells of chains 0 and 1; 0 ends after the second step, then 2 enters behind 1.
    for step, chains in enumerate([(0, 1), (0, 1), (1, 2), (1, 2)], start=1):
        for chain in chains:
            view.update("vanilla", progress(chain, step, f"chain{chain} step{step}"))
            seen.append(printed(console).count(f"chain{chain} step{step}"))
    view.close()
    assert seen == [1, 0, 1, 0, 0, 0, 1, 0]


def test_pictures_are_not_drawn_more_often_than_seen(console, monkeypatch):
    monkeypatch.setattr(live_chain, "_FRAME_SECONDS", 3600.0)
    view, decoded = ChainView(console), []
    for tokens in range(1, 50):
        one = progress(0, tokens)
        view.update("vanilla", ChainProgress(one.request, tokens, 1.0, lambda: decoded.append(1) or "x"))
    view.close()
    assert len(decoded) == 1


def test_half_a_character_waits():
    assert printable("né\ufffd\ufffd") == "né"
