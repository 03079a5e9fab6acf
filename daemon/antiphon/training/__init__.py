"""Learning: corpora to batches, the network and its trainer, and what a model is worth on pieces it has not seen."""
