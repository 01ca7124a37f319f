"""Models: from a name to weights, to answers, to a saved folder. torch and transformers start here."""

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
