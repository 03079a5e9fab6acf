"""RWKV-7: numbers in, logits out. The definition, its weights, their int8 form, and the files that hold them."""
