"""A fine-tuned model leaves as what other programs run, and is shown to be the same model."""
