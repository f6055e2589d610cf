"""Teaches a model to evict by DMS: data, gates, losses, training, and the check of what came out.

In the order of reading:

1. data: `sources` reads texts and chats from files, a hub or the model itself, `documents` tokenises them, `packing`
   fills rows and batches;
2. the model with gates: `gates.gated_model` attaches them, `attention` attends under them, `gates.inline_gates` decides
   inside attention where a neuron is borrowed (and merges, for DMC);
3. `losses`: distillation and compression, and the schedule of the target; `distillation` has both of a student and its
   teacher on a batch;
4. `trainer`: the phases, with `settings` (what can be set) and `optimizer`;
5. `gate_check`: inference must decide as training did;
6. `checkpoints` trains to each ratio, checks, writes and records; `resume` keeps the state on the disk and goes on from
   it, `reporting` shows and leaves the figures;
7. `run_training` does all of it, for a user whose settings, data and memory `job` has looked at before: what it found
   is a `training_job`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from hyperscale.retrofit.checkpoints import save_checkpoint as save_checkpoint
    from hyperscale.retrofit.checkpoints import train_checkpoints as train_checkpoints
    from hyperscale.retrofit.documents import Corpus as Corpus
    from hyperscale.retrofit.documents import build_corpus as build_corpus
    from hyperscale.retrofit.gate_check import GateCheck as GateCheck
    from hyperscale.retrofit.gate_check import check_gates as check_gates
    from hyperscale.retrofit.job import run_retrofit as run_retrofit
    from hyperscale.retrofit.packing import RowPacker as RowPacker
    from hyperscale.retrofit.packing import TokenizedDocument as TokenizedDocument
    from hyperscale.retrofit.packing import TrainingBatch as TrainingBatch
    from hyperscale.retrofit.settings import Recipe as Recipe
    from hyperscale.retrofit.settings import RetrofitSettings as RetrofitSettings
    from hyperscale.retrofit.trainer import Retrofit as Retrofit
    from hyperscale.retrofit.trainer import TrainedStudent as TrainedStudent

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["save_checkpoint", "train_checkpoints"],
        "documents": ["Corpus", "build_corpus"],
        "gate_check": ["GateCheck", "check_gates"],
        "job": ["run_retrofit"],
        "packing": ["RowPacker", "TokenizedDocument", "TrainingBatch"],
        "settings": ["Recipe", "RetrofitSettings"],
        "trainer": ["Retrofit", "TrainedStudent"],
    },
)
