"""What a recipe over documents asks for where nobody says otherwise: the arm that looks things up in these documents."""

from luthier import recipe as recipes
from luthier.data.documents import records
from luthier.data.documents.records import DocumentFiles
from luthier.evaluate.prompts.arms import TUNED
from luthier.recipe import Evaluate, Recipe

RAG = "rag"


def with_documents(asked: Recipe) -> Recipe:
    """The recipe with `rag` among the arms, over the data's own documents, where the data are documents.

    Settings that were given stay. Rows of text have no questions, so nothing changes for them.
    """
    path, settings = asked.data.path, asked.evaluate
    if path is None or not isinstance(found := records.find_rows(asked.data, path), DocumentFiles) or not found.pairs:
        return asked
    values: dict[str, object] = {}
    if "arms" not in settings.model_fields_set:
        values["evaluate.arms"] = _usual_arms()
    if (values or RAG in settings.arms) and settings.documents is None:
        values["evaluate.documents"] = path
    return recipes.replace(asked, values) if values else asked


def reasons(asked: Recipe) -> dict[str, str]:
    """Why the settings that `with_documents` sets have their values."""
    settings = asked.evaluate
    if settings.documents is None or settings.documents != asked.data.path:
        return {}
    found = {"evaluate.documents": "the documents that the rows are made of"}
    if settings.arms == _usual_arms():
        found["evaluate.arms"] = "the usual ones, and rag, since the data are documents"
    return found


def _usual_arms() -> tuple[str, ...]:
    return (*(arm for arm in Evaluate().arms if arm != TUNED), RAG, TUNED)
