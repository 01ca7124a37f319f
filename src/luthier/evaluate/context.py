"""What every stage of the evaluation works with: a run, its recipe, its questions, its answer files, its models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from luthier.data import labels
from luthier.data.dataset import Item
from luthier.data.prepared import Prepared
from luthier.errors import Interrupted
from luthier.evaluate import metrics
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.endpoint import Endpoint
from luthier.evaluate.answers.file import AnswersFile
from luthier.evaluate.answers.gguf_file import GgufFile
from luthier.evaluate.prompts.arms import ENDPOINT, Prompt
from luthier.evaluate.prompts.demonstration_selection import DEV_QUESTIONS
from luthier.evaluate.verdict import unanswered
from luthier.model import loading, replies
from luthier.model.loading import LanguageModel
from luthier.model.replies import Ask, TokenBudget
from luthier.model.tuned import expect_same_base, expect_template, no_model_error, starting_model
from luthier.recipe import Recipe
from luthier.runs import Run


@dataclass(frozen=True)
class Context:
    """A run and its recipe; `stop` says whether the user has asked to stop, `ask_model` puts questions to a model."""

    run: Run
    recipe: Recipe
    stop: Callable[[], bool] = lambda: False
    ask_model: Ask = replies.ask
    _items: dict[str, list[Item]] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, split: str) -> Prepared:
        """The split's rows as tokens."""
        return Prepared(self.run.folder / "data" / f"{split}.arrow")

    def items(self, split: str) -> list[Item]:
        """The split's rows as conversations, read once for a stage; not those whose answer people did not like."""
        if split not in self._items:
            self._items[split] = labels.liked(self.rows(split).items())
        return self._items[split]

    def dev_items(self) -> list[Item]:
        """The dev questions that prompts are selected by, in an order that has nothing to do with the file's."""
        return sorted(self.items("dev"), key=lambda item: item.id)[:DEV_QUESTIONS]

    @property
    def documents(self) -> bool:
        """Whether the rows are documents, of which nothing is asked."""
        return self.rows("test").documents

    @property
    def token_budget(self) -> TokenBudget:
        """How many tokens a reply may have, for thoughts and answer."""
        settings = self.recipe.evaluate
        assert settings.max_new_tokens, "a run's own recipe has every value"
        return TokenBudget(settings.max_new_tokens, settings.thinking_tokens or 0)

    def answers_file(self, name: str) -> AnswersFile:
        """evaluation/NAME.jsonl, scored by the metric that decides and by those shown beside it."""
        scorers = metrics.scorers(str(self.recipe.evaluate.metric), metric_settings(self.recipe))
        return AnswersFile(self.run.folder / "evaluation" / f"{name}.jsonl", scorers, self.ask_model)

    def ask(
        self, lm: LanguageModel, items: Sequence[Item], arm: str, prompt: Prompt, *, split: str, file: str
    ) -> list[AnswerRecord]:
        """The arm's answers to these items, in their order; records a warning for each kind of question without an answer."""
        answers_file = self.answers_file(file)
        asked_before = answers_file.has_answered(arm, items)
        records = answers_file.ask(
            lm, items, arm=arm, prompt=prompt, budget=self.token_budget, progress=self.progress(arm, split)
        )
        if not asked_before:
            self.warn_of_unanswered(records, arm, split, lm)
        return records

    def warn_of_unanswered(self, records: Sequence[AnswerRecord], arm: str, split: str, lm: LanguageModel) -> None:
        """Record a warning of questions to which an arm has no answer, and of prompts with fewer demonstrations than others."""
        for message in unanswered.warnings(records, arm, split, context_tokens=lm.context):
            self.run.record("warning", message=message)

    def score_documents(self, lm: LanguageModel, arm: str) -> None:
        """An arm's scores on the test documents."""
        progress = self.progress(arm, "test")
        self.answers_file("answers").score_documents(lm, self.rows("test"), arm=arm, progress=progress)

    def progress(self, arm: str, split: str) -> Callable[[int, int], None]:
        """What to call after each batch: records how far the arm is, and raises Interrupted where the user asked to stop."""

        def record_progress(done: int, of: int) -> None:
            self.run.record("arm", arm=arm, split=split, done=done, of=of)
            if self.stop():
                raise Interrupted(f"stopped while {arm} answered the {split} questions; {done} of {of} are kept.")

        return record_progress

    def exclude_arm(self, arm: str, reason: str) -> None:
        """Record that an arm cannot be compared, and why."""
        self.run.record("excluded", arm=arm, why=reason)
        self.run.record("warning", message=f"{arm} is left out of the comparison: {reason}.")

    def excluded_arms(self) -> dict[str, str]:
        """Arms that could not be compared, each with the latest reason."""
        return {event["arm"]: event["why"] for event in self.run.events("excluded")}


def endpoint_of(recipe: Recipe, name: str) -> Endpoint:
    """The endpoint behind "endpoint:NAME": a service, or a GGUF file on this machine."""
    short = name.removeprefix(ENDPOINT)
    settings = recipe.evaluate.endpoints[short]
    if settings.url.lower().endswith(".gguf") and "://" not in settings.url:
        return GgufFile.at(Path(settings.url).expanduser(), where=f"evaluate.endpoints.{short}.url")
    return Endpoint.of(short, settings)


def load_base(context: Context) -> LanguageModel:
    """The base model, if it is still the one that the run was started with."""
    base = starting_model(context.run, context.recipe)
    expect_same_base(context.run, base)
    return base


def load_tuned(run: Run) -> LanguageModel:
    """The run's model, if it is still used with the template that it was trained with."""
    if not (run.folder / "model").is_dir():
        raise no_model_error(run)
    tuned = loading.load(str(run.folder / "model"))
    expect_template(run, tuned.template)
    return tuned


def metric_settings(recipe: Recipe) -> metrics.MetricSettings:
    """What of the recipe metrics depend on."""
    settings = recipe.evaluate
    return metrics.MetricSettings(settings.json_schema, settings.tolerance, settings.embedder)
