"""The proof: from two models and held-out questions to a verdict under a plan that was frozen beforehand.

    prompts chosen on dev → plan frozen → test opened → base answers → (training) → tuned answers → verdict

`stages` is that line; each room beside it does one part. Everything is read from and left in the run folder; what has been
answered is not asked again. Nothing is imported here, so that statistics come without torch.
"""
