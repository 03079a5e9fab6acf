"""MIDI ports, in a process of their own: stamped on the way in, released on time on the way out.

The daemon uses `line` (start, send, stop) and `messages`; everything else runs in the ports process. Light by
contract: nothing here imports torch, miditok, numpy or the network, and only `rtmidi_backend` imports rtmidi.
"""
