"""Weights of published models: BERT, LXMERT and VisualBERT."""
