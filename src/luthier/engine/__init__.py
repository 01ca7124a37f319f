"""Answers for many at once, from one model in memory: requests join and leave a running batch between its steps.

requests, streams         what is asked; what comes back, piece by piece
engine                    the door: submit, adapters, likelihoods, statistics, end
loop, reading, lanes      one thread: who is next, prompts in portions, a token for each row at every step
rows, text, picking       a request while it is answered; tokens → whole characters; scores → tokens
waiting, prefixes         the bounded queue, fair over clients; beginnings of prompts that come again
"""
