"""How long a training will take, from its own first steps."""

from dataclasses import dataclass, field

STEPS_MEASURED = 3  # before a forecast; the first is slower, since it makes what later ones find made
SAVE_BYTES_PER_SECOND = 0.8e9  # of a checkpoint: written, hashed, flushed and read back, on a quiet disk


@dataclass(frozen=True)
class Forecast:
    """Seconds of a whole training by what they are spent on."""

    steps: float
    validation: float
    checkpoints: float

    @property
    def seconds(self) -> float:
        return self.steps + self.validation + self.checkpoints

    def fields(self) -> dict[str, float]:
        """What an event says of it."""
        return {"updating": self.steps, "looking": self.validation, "saving": self.checkpoints}


@dataclass
class Throughput:
    """Seconds of steps, validations and checkpoints, as far as they have been measured."""

    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    update_seconds: list[float] = field(default_factory=list)
    """Of the seconds, those that changing the weights took: the same however many tokens a step has."""
    validation_seconds: float = 0.0
    """Of one validation."""
    save_seconds: float = 0.0
    """Of one checkpoint, or an estimate before there was one."""

    def add_step(self, tokens: int, seconds: float, *, update: float) -> None:
        """A step was made; `update` of its seconds changed the weights."""
        if len(self.seconds) < STEPS_MEASURED:
            self.tokens.append(tokens)
            self.seconds.append(seconds)
            self.update_seconds.append(update)

    @property
    def is_known(self) -> bool:
        """Whether enough steps were measured for a forecast."""
        return len(self.seconds) == STEPS_MEASURED

    @property
    def seconds_per_update(self) -> float:
        """Seconds of changing the weights once, the first step left out."""
        return sum(self.update_seconds[1:]) / len(self.update_seconds[1:])

    @property
    def seconds_per_token(self) -> float:
        """Seconds for each token, forward and backward, the first step left out."""
        return (sum(self.seconds[1:]) - sum(self.update_seconds[1:])) / sum(self.tokens[1:])

    def forecast(self, tokens: float, *, steps: int, checks: int) -> Forecast:
        """The time of a training of so many tokens in so many steps, the measured ones included, which may have been smaller.

        Each check is a validation and a checkpoint; one more validation comes before the first step.
        """
        start = max(0.0, self.seconds[0] - self.seconds_per_token * self.tokens[0] - self.seconds_per_update)
        made = start + self.seconds_per_token * tokens + self.seconds_per_update * steps
        return Forecast(made, self.validation_seconds * (checks + 1), self.save_seconds * checks)
