"""OpenAI's API: what its clients send and read, by the types of the `openai` package.

shapes            what every list and id has in common
files             files that are uploaded, and those that jobs leave
fine_tuning       jobs, their events and checkpoints
models            what can answer
requests          what may be asked of a model, each number with its limits
answering         from a request to streams of tokens, and from these to one answer or to events
choice            an answer among those that a chat request allows, by likelihoods
relay             a request whose model answers at another server
chat, completions, embeddings    the routes that answer
"""
