"""One file per benchmark, and the table of them."""
