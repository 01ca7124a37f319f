"""The verbs: what the terminal and Python ask for, each over one run folder.

proof         `run` and `evaluate`: the stages from the data to the verdict
pretraining   `pretrain`: the stages from raw text to a base model; scaling, trial: the settings that follow from one dial;
              held_out: bits per byte of text that nobody trained on; vocabulary: a tokenizer of a corpus
preparation   `prepare`: rows as tokens, splits, every setting with its reason
split_rows    from the files to the rows of each split, a few hundred at a time
defaults      the settings that nobody set, from the model and the data; `row_limit`: how long a row may be
opening       a new folder, or one to be continued
resume        what must be as it was before a run goes on
inspection    what the data is and what is wrong with it, before anything is trained
estimate      memory, disk and time of a training before it starts
benchmarks    a model on benchmarks, beside its base
sweep         many runs that differ in one thing
"""

from luthier.pipeline.benchmarks import benchmark
from luthier.pipeline.opening import base_of, default_folder, open_run
from luthier.pipeline.preparation import Preparation, prepare
from luthier.pipeline.pretraining import PRETRAIN, is_pretraining, pretrain
from luthier.pipeline.proof import PROVE, Stage, evaluate, run

__all__ = [
    "PRETRAIN",
    "PROVE",
    "Preparation",
    "Stage",
    "base_of",
    "benchmark",
    "default_folder",
    "evaluate",
    "is_pretraining",
    "open_run",
    "prepare",
    "pretrain",
    "run",
]
