"""The demo's world, generated from a seed: tweets, images, knowledge, and an encoder pretrained on its language."""

from __future__ import annotations
