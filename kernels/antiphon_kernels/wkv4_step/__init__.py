"""WKV-4 token by token: weighted sums of past values, channel by channel, in place."""
