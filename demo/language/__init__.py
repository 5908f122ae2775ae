"""The sentences of the drawn world: captions, questions and statements about scenes."""
