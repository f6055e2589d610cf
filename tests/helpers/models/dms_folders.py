"""Tiny checkpoints that borrow neurons, in the files of NVIDIA's and of FastDMS's format, in folders and on a hub."""

import json
import shutil

import architectures
import tiny

WINDOW, SCALE, OFFSET, CR = 5, 100.0, 5.0, 8


def write(folder, family="llama", *, keys=None, metadata=None, log=None, seed=0, **sizes):
    """A checkpoint of a family, with keys in ``config.json`` and FastDMS's files as given; returns the plain model."""
    words = architectures.tokenizer()
    model = tiny.model(family, vocab=len(words), eos=words.eos_token_id, seed=seed, **sizes)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    edit(folder, **(keys or {}))
    if metadata is not None:
        (folder / "dms_metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    if log is not None:
        (folder / "training_log.json").write_text(json.dumps(log), encoding="utf-8")
    return model


def edit(folder, **keys):
    """Change keys of ``config.json``; those given as ... are taken out."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | keys
    config = {key: value for key, value in config.items() if value is not ...}
    path.write_text(json.dumps(config), encoding="utf-8")


NVIDIA_KEYS = {
    "dms_window_size": WINDOW,
    "dms_alpha_scale": SCALE,
    "dms_initial_alpha_offset": OFFSET,
    "dms_cr": CR,
    "dms_disable_eviction": False,
    "dms_alpha_per": "head",
    "dms_tau": 0.1,
    "dms_paged_attention_block_size": 4,
}
"""As NVIDIA's code writes them, without ``dms_separate_alpha``."""
FASTDMS_METADATA = {"window_size": WINDOW, "alpha_scale": SCALE, "alpha_offset": OFFSET, "target_cr": CR}
FASTDMS_KEYS = {"dms_window_size": WINDOW, "dms_alpha_scale": SCALE, "dms_alpha_offset": OFFSET, "dms_cr": CR}


def publish(hub, name, folder, *, revision="main", commit="0" * 40):
    """Put a folder into the hub's cache ``hub`` as a repository's revision, as downloads leave it."""
    repository = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / revision).write_text(commit, encoding="ascii")


def use_hub(monkeypatch, hub):
    """Make ``hub`` the hub's cache, and the hub unreachable."""
    from huggingface_hub import constants
    from transformers.utils import hub as transformers_hub

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(transformers_hub, "is_offline_mode", lambda: True)
