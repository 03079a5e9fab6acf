"""What stands between the matrices of an RWKV-7 block, a few launches in all."""
