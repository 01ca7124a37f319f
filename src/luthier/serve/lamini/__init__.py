"""Lamini's API, as its clients from 2.0 to 3.4 speak it; the course's cells run against it unchanged.

dialect      which requests are Lamini's where paths are shared with OpenAI's, and errors in the form its clients read
shapes       what requests hold
inference    texts and typed answers, whole, in streams that are polled, in batches
data         rows that are uploaded before a training
training     jobs, their status, the answers of the tuned model beside those of its base
page         the page that clients print a link to
"""
