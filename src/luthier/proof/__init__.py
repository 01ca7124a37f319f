"""The proof: from two models and held-out questions to a verdict under a plan that was frozen beforehand.

    prompts chosen on dev → plan frozen → test opened → base answers → (training) → tuned answers → verdict

Everything is read from and left in the run folder; what has been answered is not asked again.
"""

from luthier.proof.desk import Desk, load_tuned, metric_settings
from luthier.proof.lent import lend
from luthier.proof.opinion import ask_judge
from luthier.proof.stages import again, arms_of, ask_base, ask_tuned, changed, check, copy_documents, judge
from luthier.proof.tryout import try_prompts

__all__ = [
    "Desk",
    "again",
    "arms_of",
    "ask_base",
    "ask_judge",
    "ask_tuned",
    "changed",
    "check",
    "copy_documents",
    "judge",
    "lend",
    "load_tuned",
    "metric_settings",
    "try_prompts",
]
