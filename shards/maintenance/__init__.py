"""Work on a finished data set: verifying, repairing, converting, comparing."""
