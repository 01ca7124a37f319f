"""Answers: put to a model or an endpoint, written down with their scores, and not asked again."""
