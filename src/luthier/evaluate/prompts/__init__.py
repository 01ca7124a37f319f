"""What the base model is given before a question: prompts of rising strength, and what they are made of."""
