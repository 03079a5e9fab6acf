"""From logits to one id: masked temperature, top-k, min-p and top-p sampling, and what an id cost."""
