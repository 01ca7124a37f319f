"""How long a training will take, told by its own first steps; and how far that was from what it took."""

from dataclasses import dataclass, field

STEPS_WATCHED = 3  # before anything is told; the first is slower, since it makes what later ones find made
SAVED_PER_SECOND = 0.8e9  # bytes of a checkpoint: written, hashed, flushed and read back, on a quiet disk


@dataclass(frozen=True)
class Forecast:
    """Seconds of a whole training by what they are spent on: updates, looks at dev, checkpoints."""

    updating: float
    looking: float
    saving: float

    @property
    def seconds(self) -> float:
        return self.updating + self.looking + self.saving


@dataclass
class Pace:
    """Seconds of steps, of looks at dev and of saves, as far as they have been seen."""

    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    """Of the seconds, those that changing the weights took: the same however many tokens a step has."""
    look: float = 0.0
    """Seconds of the last look at dev."""
    save: float = 0.0
    """Seconds of the last save, or an estimate before there was one."""

    def step(self, tokens: int, seconds: float, *, update: float) -> None:
        """A step is done."""
        if len(self.seconds) < STEPS_WATCHED:
            self.tokens.append(tokens)
            self.seconds.append(seconds)
            self.updates.append(update)

    @property
    def known(self) -> bool:
        """Whether enough steps were seen to tell."""
        return len(self.seconds) == STEPS_WATCHED

    @property
    def per_update(self) -> float:
        """Seconds of changing the weights once, the first step left out."""
        return sum(self.updates[1:]) / len(self.updates[1:])

    @property
    def per_token(self) -> float:
        """Seconds for each token, forward and backward, the first step left out."""
        return (sum(self.seconds[1:]) - sum(self.updates[1:])) / sum(self.tokens[1:])

    def forecast(self, tokens: float, *, steps: int, checks: int) -> Forecast:
        """The time of a training of so many tokens in so many steps, those seen among them, which may have been smaller.

        Each check looks at dev and saves; another look comes before the first step.
        """
        start = max(0.0, self.seconds[0] - self.per_token * self.tokens[0] - self.per_update)
        updating = start + self.per_token * tokens + self.per_update * steps
        return Forecast(updating, self.look * (checks + 1), self.save * checks)
