"""Lamini's API, as its clients from 2.0 to 3.4 speak it; the course's cells run against it unchanged.

dialect      which requests are Lamini's where paths are shared with OpenAI's, and errors in the form its clients read
shapes       what requests hold
answers      texts and typed answers to prompts
pending      those that are fetched later
inference    the routes that answer: whole, in streams that are polled, in batches
classifiers  what is not here: classifiers and embeddings, and what there is instead
data         rows that are uploaded before a training
training     jobs, their status, the answers of the tuned model beside those of its base
"""
