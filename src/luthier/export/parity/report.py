"""What a check of an exported model found, as `FILE.parity.json` has it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.export.parity.limits import Limits
from luthier.runs.durable import write_atomic

FORMAT = 1


@dataclass
class Report:
    """The five comparisons of an exported file with its run, and what is at fault."""

    run: str
    file: str
    type: str
    engine: str
    limits: Limits
    unchecked: bool = False
    """Whether the file was written although something could not be checked."""
    modelfile: dict[str, Any] = field(default_factory=dict)
    """Of an export for Ollama: what the template in its Modelfile renders."""
    template: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, Any] = field(default_factory=dict)
    top1: dict[str, Any] = field(default_factory=dict)
    kl: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Each with the layer first: load, modelfile, template, ids, setting, tensor, top1, kl, answers, score."""
    notes: list[str] = field(default_factory=list)
    """What is known to be otherwise in llama.cpp and no fault of the file."""
    seconds: float = 0.0

    @property
    def path(self) -> Path:
        """The exported file."""
        return Path(self.file)

    @property
    def passed(self) -> bool:
        return not self.faults

    def stop(self, message: str) -> None:
        """The engine goes no further with the file: what has not been compared is skipped, and that is a fault."""
        for name in ("template", "ids", "top1", "kl", "answers", "score"):
            if not getattr(self, name):
                setattr(self, name, {"skipped": "llama.cpp does not run the file"})
        self.faults.append(message)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "run": self.run, "file": self.file, "type": self.type, "engine": self.engine,
            "limits": {"top1": self.limits.top1, "kl": self.limits.kl, "answers": self.limits.answers},
            "unchecked": self.unchecked, "passed": self.passed,
            **({"modelfile": self.modelfile} if self.modelfile else {}), "template": self.template, "ids": self.ids,
            "top1": self.top1, "kl": self.kl, "answers": self.answers, "score": self.score, "faults": self.faults,
            "notes": self.notes, "seconds": round(self.seconds, 1),
        }  # fmt: skip

    def write(self, file: Path) -> Path:
        """Write it beside the exported file."""
        path = path_of(file)
        write_atomic(path, json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")
        return path


def path_of(file: Path) -> Path:
    """Where the report on a file stands."""
    return file.with_name(f"{file.name}.parity.json")
