"""Training; file by file:

check             what is refused before anything heavy starts
memory_estimate   memory by part and disk, before it starts; throughput: its time, after three steps
rows, order       rows as a training takes them; which of them form which step
sanity_check      on a run's own first rows: does the loss count what they say, and nothing else?
loop              `train`: steps, dev checks, checkpoints, an early end
objectives        the loss of a micro-batch; the table `OBJECTIVES`: add an objective there
optimizer         from gradients to updates, rates of steps; the tables `OPTIMIZERS` and `SCHEDULES`
master_weights    the fp32 weights behind bf16 ones; optimizer_state: what optimizers remember, as named tensors
checkpoint        weights, optimizer and step on the disk: complete, or not there
nonfinite         errors for a loss or a gradient that is no number
"""
