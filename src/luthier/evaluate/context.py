"""Where questions are put and answers written down: a run's items, its answer files, its models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from luthier.data.dataset import Item
from luthier.data.prepared import Prepared
from luthier.errors import Interrupted
from luthier.evaluate import metrics
from luthier.evaluate.answers import AnswerRecord
from luthier.evaluate.answers.endpoint import Endpoint
from luthier.evaluate.answers.file import AnswersFile
from luthier.evaluate.prompts.arms import ENDPOINT, Prompt
from luthier.evaluate.prompts.demonstration_selection import DEV_QUESTIONS
from luthier.evaluate.verdict import unanswered
from luthier.model import loading
from luthier.model.loading import LanguageModel
from luthier.model.replies import Room
from luthier.model.tuned import expect_template, no_model, same_model, starting_model
from luthier.recipe import Recipe
from luthier.runs import Run


@dataclass(frozen=True)
class Context:
    """A run, its recipe, and whether to stop: what every stage of the proof works with."""

    run: Run
    recipe: Recipe
    stop: Callable[[], bool] = lambda: False
    _read: dict[str, list[Item]] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, split: str) -> Prepared:
        return Prepared(self.run.folder / "data" / f"{split}.arrow")

    def items(self, split: str) -> list[Item]:
        """The split's rows as conversations, read once for a stage."""
        if split not in self._read:
            self._read[split] = self.rows(split).items()
        return self._read[split]

    def dev_items(self) -> list[Item]:
        """The dev questions that prompts are chosen by, in an order that has nothing to do with the file's."""
        return sorted(self.items("dev"), key=lambda item: item.id)[:DEV_QUESTIONS]

    @property
    def documents(self) -> bool:
        """Whether the rows are documents, of which nothing is asked."""
        return self.rows("test").documents

    @property
    def room(self) -> Room:
        """How many tokens a reply may have, thoughts and answer."""
        settings = self.recipe.evaluate
        assert settings.max_new_tokens, "a run's own recipe has every value"
        return Room(settings.max_new_tokens, settings.thinking_tokens or 0)

    def answers_file(self, name: str) -> AnswersFile:
        """A file of answers, scored by the metric that decides and by those shown beside it."""
        scored = metrics.scorers(str(self.recipe.evaluate.metric), metric_settings(self.recipe))
        return AnswersFile(self.run.folder / "evaluation" / f"{name}.jsonl", scored)

    def ask(
        self, lm: LanguageModel, items: Sequence[Item], arm: str, prompt: Prompt, *, split: str, file: str
    ) -> list[AnswerRecord]:
        """The arm's answers to these items, in their order; tells what of its prompts did not fit into the context."""
        answers_file = self.answers_file(file)
        known = answers_file.has_answered(arm, items)
        records = answers_file.ask(
            lm,
            items,
            arm=arm,
            prompt=prompt,
            room=self.room,
            progress=self.progress(arm, split),
        )
        if not known:
            self.tell_unanswered(records, arm, split, lm)
        return records

    def tell_unanswered(self, records: Sequence[AnswerRecord], arm: str, split: str, lm: LanguageModel) -> None:
        """Warn of questions to which an arm has no answer, and of prompts with fewer examples than others."""
        for told in unanswered.told(records, arm, split, lm.context):
            self.run.record("warning", message=told)

    def score_documents(self, lm: LanguageModel, arm: str) -> None:
        """An arm's scores on the test documents."""
        answers_file = self.answers_file("answers")
        answers_file.score_documents(lm, self.rows("test"), arm=arm, progress=self.progress(arm, "test"))

    def progress(self, arm: str, split: str) -> Callable[[int, int], None]:
        """Records how far an arm is, and stops between two batches when asked to."""

        def tell(done: int, of: int) -> None:
            self.run.record("arm", arm=arm, split=split, done=done, of=of)
            if self.stop():
                raise Interrupted(f"stopped while {arm} answered the {split} questions; {done} of {of} are kept.")

        return tell

    def leave_out(self, arm: str, why: str) -> None:
        """Note that an arm cannot be compared, and why."""
        self.run.record("excluded", arm=arm, why=why)
        self.run.record("warning", message=f"{arm} is left out of the comparison: {why}.")

    def left_out(self) -> dict[str, str]:
        """Arms that could not be compared, each with the latest reason."""
        return {event["arm"]: event["why"] for event in self.run.events("excluded")}


def endpoint_of(recipe: Recipe, name: str) -> Endpoint:
    """The endpoint behind "endpoint:NAME"."""
    short = name.removeprefix(ENDPOINT)
    return Endpoint.of(short, recipe.evaluate.endpoints[short])


def load_base(context: Context) -> LanguageModel:
    """The base model, if it is still the one that the run was started with."""
    base = starting_model(context.run, context.recipe)
    same_model(context.run, base)
    return base


def load_tuned(current: Run) -> LanguageModel:
    """The run's model, if it is still used with the template that it was trained with."""
    if not (current.folder / "model").is_dir():
        raise no_model(current)
    tuned = loading.load(str(current.folder / "model"))
    expect_template(current, tuned.template)
    return tuned


def metric_settings(recipe: Recipe) -> metrics.Settings:
    """What of the recipe metrics depend on."""
    settings = recipe.evaluate
    return metrics.Settings(settings.json_schema, settings.tolerance, settings.embedder)
