"""The WKV-7 recurrence over whole sequences, forward and backward."""
