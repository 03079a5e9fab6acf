"""WKV-5 and 6 token by token: a matrix per head that fades along its keys, in place."""
