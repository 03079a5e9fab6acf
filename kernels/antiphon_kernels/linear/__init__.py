"""Every linear layer: rows of activations times one matrix, in seven formats, with the same bits everywhere."""
