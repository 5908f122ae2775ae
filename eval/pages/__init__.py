"""The pages of evaluation: the report, its gallery, explanations, and runs side by side."""
