"""The errors for a loss or a gradient that is no number: where it comes from, and what to do.

Continuing from the last checkpoint would end the same way, since a step does the same whenever it is made. So this is no
interruption: the run has failed.
"""

import math
from collections.abc import Iterable

import torch

from luthier.errors import NonFiniteLoss
from luthier.model.causal import CausalModel
from luthier.recipe import Train
from luthier.train import order
from luthier.train.objectives import Objective
from luthier.train.rows import TokenRows

SHOWN = 8  # rows, or names of weights


@torch.no_grad()
def of_step(
    model: CausalModel,
    objective: Objective,
    rows: TokenRows,
    step: order.Step,
    settings: Train,
    *,
    number: int,
    loss: float,
) -> NonFiniteLoss:
    """The loss or gradient of a step; names the rows whose own loss is not finite."""
    losses = ((row, objective.measure(model, rows, [row]).total.item()) for row in step.rows)
    guilty = [row for row, loss_alone in losses if not math.isfinite(loss_alone)]
    what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not finite"
    which = "rows whose own loss is not finite" if guilty else "rows of this step"
    return NonFiniteLoss(
        f"{what} at step {number}; stopped before the update, so the weights are as they were. "
        f"{which}: {_listed(map(rows.location, guilty or step.rows))}. Resuming would end the same way: start anew without "
        f"these rows, or with a train.learning_rate below {settings.learning_rate:g}."
    )


@torch.no_grad()
def of_dev(
    model: CausalModel, objective: Objective, rows: TokenRows, settings: Train, *, step: int, loss: float
) -> NonFiniteLoss:
    """The loss on dev after a step, or before the first one, when it is the model itself that gives no numbers."""
    if step:
        return NonFiniteLoss(
            f"the dev loss is {loss} after step {step}: the updates went too far. Resuming would end the same way: start anew "
            f"with a train.learning_rate below {settings.learning_rate:g}."
        )
    if broken := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        return NonFiniteLoss(
            f"the dev loss is {loss} before the first update, because these weights of the model hold values that are no "
            f"numbers: {_listed(broken)}. Get a sound copy of the model."
        )
    was_training = model.training
    model.eval()
    guilty = [row for row in range(len(rows)) if not math.isfinite(objective.measure(model, rows, [row]).total.item())]
    model.train(was_training)
    return NonFiniteLoss(
        f"the dev loss is {loss} before the first update, in {settings.precision}. "
        f"dev rows whose own loss is not finite: {_listed(map(rows.location, guilty))}. Start anew without these rows"
        + (", or with train.precision=fp32." if settings.precision == "bf16" else ".")
    )


def _listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    found = list(names)
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
