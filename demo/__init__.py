"""A small drawn world with texts that are true by construction, for demonstrations and tests.

`semvlp demo` runs the whole pipeline on it (`run.py`) and shows the scores on a page (`report.py`).
`world/` makes scenes and draws them, `language/` writes captions, questions and statements about
them, `dataset/` puts both into the files of the public benchmarks. `detector.py` trains the
detector that ships with the package on drawn pictures; `experiments/` runs the pipeline on real
pictures.
"""
