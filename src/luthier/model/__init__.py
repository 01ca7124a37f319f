"""Models: from a name to weights, to answers, to a saved folder. torch and transformers start here. File by file:

reference, gguf, gguf_file a name → a folder, its configuration, its tokenizer (`tokenizer`) and its template
folder, identity          whether a folder can be used; whether it is still the model that it was
spec                      sizes and kinds of layers, from the configuration alone; memory of activations
loading, weights          a folder → weights in memory, checked; how a model is saved
tuned                     models that runs made: to go on from, side by side, merged
device, machine, memory   where and in which dtype to compute; what was measured of this machine; what is free
allocator                 memory that each step takes and frees again
causal, probes            the model from outside; what is tried on it instead of trusted to its name
conformance               whether our rows and prompts are those of transformers

methods, adapters         which weights are trained; the table `METHODS`: add a method there
layers, recomputation     how layers compute while a model trains
packed, padding           rows of a batch as one sequence; as padded rows and back
attention, prefix_sharing each row sees itself alone; a prefix that rows share is computed once
head                      the loss, with the output head where it is taken only

generate, sampling        answers, many at once; which token comes next
products                  linear layers of answers, by the library that is faster here
decoding, cache           rows that are read and written together; keys and values of what they read
replies                   thoughts apart from the answer
likelihood, prefix_tree   how likely texts are; several continuations behind one context
"""

import logging
import os

# Read when torch is first loaded. By default OpenMP's threads spin while they wait for each other; as soon as another program
# wants a core, that slows every small kernel down by a factor of ten and more. Alone on the machine it makes no difference.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Read by oneDNN and by torch's own layer over it. They keep compiled products of 1,024 shapes; batches of rows hardly ever have
# the same number of tokens, so a training would hold hundreds of megabytes of products that no batch asks for again.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
os.environ.setdefault("LRU_CACHE_CAPACITY", "128")

# Where bitsandbytes is installed, peft loads it, and on some processors it then warns of a package of kernels that is missing.
# Luthier never uses those.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
