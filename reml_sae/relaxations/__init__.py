"""Where a search may start: arrays in, arrays out, no model of the engine."""
