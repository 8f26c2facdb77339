"""Who may halt: enrolled keys, the touch, and the proof that it leaves."""
