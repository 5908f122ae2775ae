"""The page of `semvlp serve` and its JSON API: who may ask, and what is answered."""
