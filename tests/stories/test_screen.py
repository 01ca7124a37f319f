"""What the progress line says of a training, and what it must not say."""

import pytest

from luthier.cli.screens.run import RunScreen, arms_table

STEP = {"kind": "step", "step": 5, "steps": 10, "loss": 0.9, "tokens": 100, "tokens_per_second": 50.0}


@pytest.mark.parametrize(
    ("first", "told"),
    [(1.0, "dev 1.200 (best, but 1.000 before training)"), (1.5, "dev 1.200 (best)"), (None, "(best)")],
)
def test_a_dev_loss_above_the_base_model_s_is_not_called_best_without_saying_so(
    capsys: pytest.CaptureFixture[str], first: float | None, told: str
) -> None:
    screen = RunScreen()
    screen({"kind": "dev", "step": 5, "loss": 1.2, "best": True, "first_loss": first})
    screen(STEP)
    assert told in capsys.readouterr().err
    screen({
        "kind": "trained", "step": 10, "seconds": 9, "reason": "all steps done", "best_loss": 1.2, "best_step": 5,
        "first_loss": first,
    })  # fmt: skip
    line = capsys.readouterr().err.strip()
    assert line.endswith("1.200 at step 5, but 1.000 before training" if first == 1.0 else "1.200 at step 5")


def test_the_self_test_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    RunScreen()({"kind": "selftest", "rows": 8, "learnt": 1, "ends": False, "apart": False, "seconds": 0.1})
    tokens = "in the first 8 rows, the loss counts the 1 token marked and no others"
    line = f"{tokens}; rows have no end token; packed rows mix"
    assert capsys.readouterr().err == f"Checked   {line}\n"


def test_the_table_of_arms_names_the_level_of_its_intervals() -> None:
    arm = {"mean": 0.5, "interval": [0.4, 0.6], "prompt_tokens": 9, "answer_tokens": 3, "seconds": 0.1}
    verdict = {
        "higher_is_better": True, "metric": "chrf", "confidence": 0.9, "best_prompt_arm": "zero-shot",
        "arms": {"zero-shot": arm, "fine-tuned": arm},
    }  # fmt: skip
    assert "90 % interval" in [column.header for column in arms_table(verdict).columns]
