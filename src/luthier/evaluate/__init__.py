"""The evaluation: from two models and held-out questions to a verdict under a plan that was frozen beforehand.

    stages           in their order: prompts selected on dev → plan frozen → test opened → answers → verdict
    (single files)   what a stage does with a run: `preregistration`, `prompt_selection`, …; `context` is what all work with
    verdict          BETTER, WORSE, EQUIVALENT, NOT SHOWN, and what may take that back
    judge, guards, error_analysis    beside the verdict: a model's opinion, what training broke, kinds of errors
    benchmark        lm-eval's tasks
    answers          asked, scored, written down
    prompts          the arms that fine-tuning is compared with
    metrics          an answer and its reference → a score
    statistics       scores → intervals and p-values; numpy and scipy only

A room imports from those below it. Nothing is imported here, so that statistics come without torch.
"""
