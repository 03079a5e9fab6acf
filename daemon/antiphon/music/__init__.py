"""Music as plain data: stamped events, notes, bars, meters and tempos. Nothing here needs a fixture to test."""
