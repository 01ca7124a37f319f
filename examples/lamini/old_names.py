"""`QuestionAnswerModel`, a name of Lamini's client from before version 2, on the client of today.

Needs `lamini` 2.0.2 to 2.0.16; programs that said `from llama import QuestionAnswerModel` say `from old_names import` instead.
"""

from typing import Any

from llama import BasicModelRunner


class QuestionAnswerModel(BasicModelRunner):
    """Learns from questions and answers, and answers questions."""

    def __init__(self, model_name: str = "EleutherAI/pythia-410m-deduped", **settings: Any) -> None:
        super().__init__(model_name, **settings)

    def load_question_answer(self, data: list[dict[str, str]]) -> None:
        """Questions and answers to train on, each a dict with both."""
        self.load_data(data, input_key="question", output_key="answer")

    def load_question_answer_from_jsonlines(self, file_path: str) -> None:
        self.load_data_from_jsonlines(file_path, input_key="question", output_key="answer")

    def load_question_answer_from_dataframe(self, df: Any) -> None:
        self.load_data_from_dataframe(df, input_key="question", output_key="answer")

    def load_question_answer_from_csv(self, file_path: str) -> None:
        self.load_data_from_csv(file_path, input_key="question", output_key="answer")

    def get_answer(self, question: str) -> str:
        """The answer to a question; of the tuned model, once it is trained."""
        return str(self(question))

    def get_eval_results(self) -> Any:
        """The tuned model's answers to held-out questions, and its base's."""
        return self.evaluate()
