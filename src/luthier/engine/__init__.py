"""Answers for many at once, from models in memory: requests join and leave a running batch between its steps.

requests, streams         what is asked; what comes back, piece by piece
engine                    the door of one model: submit, adapters, likelihoods, statistics, end
pool                      engines by name in bounded memory
loop, reading, lanes      one thread: who is next, prompts in portions, a token for each row at every step
rows, text, picking       a request while it is answered; tokens → whole characters; scores → tokens
adapters, grammar         adapters by row in one batch; JSON by a schema
waiting, prefixes         the bounded queue, fair over clients; beginnings of prompts that come again
threads                   on how many threads to compute
"""
