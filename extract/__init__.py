"""Images to regions: detectors of several families, selection, a resumable pipeline."""
