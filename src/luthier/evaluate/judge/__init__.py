"""A language model's or people's opinion of which of two answers is better: who is asked, how, and how far they agree."""
