"""Tokenizes the shards a manifest names and trains a GPT that knows what it does not know."""

import os

# Threads of a CPU that wait for each other should sleep: spinning, they take a busy machine's cores from the ones they
# wait for (4 times slower beside one other program). It must be said before torch is imported; results are the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
