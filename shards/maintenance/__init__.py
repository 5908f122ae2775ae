"""What is done to a finished data set: verified, repaired, converted, compared."""
