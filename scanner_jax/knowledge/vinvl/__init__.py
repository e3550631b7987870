"""VinVL's object and attribute detector (Zhang et al., CVPR 2021), X152-C4, in plain PyTorch.

A Faster R-CNN on a ResNeXt-152 32x8d, with 1,594 classes and 524 attributes, whose boxes the paper takes (section
3.2.1). Written from a description of the published configuration; names and shapes are the published state dict's.
"""
