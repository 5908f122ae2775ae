"""Settings with which a tiny network is pre-trained on drawn scenes; every run starts from them.

In small scenes most answers hang on one region and one word: nothing is hidden from questions, and
dropout only slows a network that sees every text once.
"""

# A drawn scene has a handful of things: beyond them the detector fills up with background.
REGIONS = ("data.max_regions=8",)

PRETRAIN = (
    "model.preset=tiny",
    "model.cross_attention=tied",
    "model.dropout=0.0",
    "model.vocab_size=2000",
    "data.texts_per_image=4",
    *REGIONS,
    "data.max_text_length=40",
    "objectives.on_questions=false",
    # Captions are few, so what is learned from them are means over a handful of pairs: with larger
    # weights their noise drowns what the answers teach.
    "objectives.matching=0.1",
    "objectives.mlm=0.05",
    "objectives.features=0.02",
    "objectives.objects=0.02",
    "objectives.attributes=0.02",
    "train.batch_size=128",
    # A tiny network then learns from about half as many pairs as with AdamW.
    "train.optimizer=muon",
    "train.lr=2e-3",
    "train.warmup_ratio=0.02",
    "train.threads=1",
    "train.save_every=500",
)

FINETUNE = (
    "model.dropout=0.0",
    "train.batch_size=64",
    "train.optimizer=muon",
    "train.lr=1e-3",
    "train.threads=1",
    "data.cache_images=20000",
    *REGIONS,
)
