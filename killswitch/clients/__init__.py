"""One file per vendor: the only imports of vendor packages, time-outs, redaction, errors."""
