"""Trainings that wait in a queue, run in processes of their own, and outlive whoever asked for them.

service            what the service calls: the store, its workers, what is followed and what is removed
store              everything that is remembered: one database, one folder
database           the tables, and transactions over them
key_table, file_table, job_table, event_table, model_table    what clients see and change, in `rows` and within `limits`
queue, lease       what workers do to jobs: claim, renew, write down, end; the clock that this goes by
worker             takes a job, starts its process, watches it
orders, child      what a worker tells the process of a training; that process
mirror             a run's events as those of its job, its metrics and checkpoints
checkpoint_models  a finished run's checkpoints as models that answer
files              whether a file can be trained on
hyperparameters    what may be asked, and what it means for the recipe
errors             what a request can get wrong
"""
