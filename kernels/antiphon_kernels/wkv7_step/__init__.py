"""WKV-7 token by token, in place in states that are chosen by their place in one array."""
