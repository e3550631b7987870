"""A page on this machine: a sentence and a picture in; entities, boxes and the knowledge that was used out."""
