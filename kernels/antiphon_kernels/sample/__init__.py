"""From logits to one id: penalties, biases, masked temperature, top-k, min-p and top-p, and what an id cost."""
