"""Models that answer at another server, behind this one's door: llama-server, vLLM, whatever speaks OpenAI's API.

addresses    what `--model NAME=URL` says, and where the key for it comes from
backend      one of them: asked, read within bounds, its refusals in our words
answer       its answer to a message, as an engine's answers come
turns        who may ask next: so many at a time, and fair over keys
"""
