"""How similar an answer's meaning is to its reference's, by an embedding model in a folder."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from luthier.errors import UserError
from luthier.evaluate.metrics.texts import exact_match
from luthier.model import weights
from luthier.model.device import pick_device
from luthier.model.folder import read_tokenizer

Embed = Callable[[Sequence[str]], Float[Tensor, "text hidden_size"]]

_LONGEST = 512  # tokens, where the model does not say


def similarity(folder: Path) -> Callable[[str, str], float]:
    """The metric: cosine of the two texts' embeddings, negative ones as 0.

    Any transformers encoder folder will do. A text's embedding is the mean of its last hidden states (Reimers &
    Gurevych 2019, section 3), so a model that was made for another pooling fits less well. Two texts without a common
    fact can be similar: read it beside another metric, never alone. Two texts that look the same to the encoder, because it
    knows no word of theirs or sees only their beginnings, are compared as text.
    """
    embed, same = _embedder(folder)

    def metric(answer: str, reference: str) -> float:
        if not answer.strip() or not reference.strip():
            return float(answer.strip() == reference.strip())
        if same(answer, reference):
            return exact_match(answer, reference)
        first, second = embed([answer, reference])
        return min(1.0, max(0.0, float(first @ second)))

    return metric


@cache
def _embedder(folder: Path) -> tuple[Embed, Callable[[str, str], bool]]:
    """Texts → embeddings of length 1; and whether two texts look the same to the encoder though they may differ."""
    if not (folder / "config.json").is_file():
        message = "no model in it; expected the folder of a sentence-embedding model (config.json, weights, tokenizer)."
        raise UserError(message, where=f"evaluate.embedder: {folder}")
    where = f"evaluate.embedder: {folder}"
    tokenizer, model = read_tokenizer(folder, where), weights.read_encoder(folder, where)
    device = pick_device()
    nn.Module.to(model, device)
    model.eval()
    longest = min(_LONGEST, int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or _LONGEST))

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> Float[Tensor, "text hidden_size"]:
        rows = []
        # One by one: without padding, a text's embedding does not depend on its batch-mates.
        for text in texts:
            ids = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").to(device)
            rows.append(model(**ids).last_hidden_state[0].mean(dim=0))  # hidden_size
        return nn.functional.normalize(torch.stack(rows), dim=-1)

    def same(first: str, second: str) -> bool:
        ids, others = (tokenizer(text, truncation=True, max_length=longest)["input_ids"] for text in (first, second))
        return ids == others and (tokenizer.unk_token_id in ids or len(ids) >= longest)

    return embed, same
