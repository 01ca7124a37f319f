"""Which of two answers is better, as a language model or people judge it.

pairwise.py    a language model compares two answers, in both orders
sources.py     where the model comes from: an endpoint, this machine, a user's function
agreement.py   how far raters agree beyond chance
ratings.py     Bradley–Terry ratings from votes
"""
