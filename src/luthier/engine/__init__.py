"""Answers for many at once: requests come and go while the model's steps go on."""
