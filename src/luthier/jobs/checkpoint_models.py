"""The checkpoints of a finished run as models that can answer, in place of what only a training can use.

A checkpoint of a training holds master weights and the optimizer's state, which nobody needs once the run is complete; as a
model it takes a third of the room.
"""

from pathlib import Path

from luthier.jobs.mirror import CHECKPOINT_MODELS
from luthier.model import loading
from luthier.runs import durable, manifest
from luthier.train import checkpoint


def make(run: Path) -> None:
    """Make a model of each checkpoint of a complete run, and remove the checkpoint; may be interrupted and called again."""
    found = manifest.folders(run / "checkpoints")
    if not found:
        return
    durable.make_folders(run / CHECKPOINT_MODELS)
    base = loading.load(str(run))
    names = {name for name, _ in base.model.named_parameters()}
    for folder in found:
        target = run / CHECKPOINT_MODELS / folder.name
        if not target.is_dir():
            tensors = checkpoint.verify(folder).tensors()
            stored = [name for name in tensors if name.startswith("weight/")]
            weights = {name.removeprefix("weight/"): tensors[name] for name in stored}
            assert weights.keys() <= names, sorted(weights.keys() - names)[:3]
            loading.save(base.model, base.tokenizer, base.template, target, weights)
        durable.remove(folder)
