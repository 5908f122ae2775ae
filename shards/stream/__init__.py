"""The endless stream of samples that training reads, in an order that can be resumed."""
