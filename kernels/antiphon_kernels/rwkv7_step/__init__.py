"""One RWKV-7 token on the CPU: the whole step in one compiled call."""
